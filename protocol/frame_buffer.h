// Splits a byte stream into frames.
//
// A flat buffer with three ordered offsets. One invariant, asserted after each move:
//
//     0 <= consumed <= parsed <= received <= capacity
//
//     | wiped      | handed out   | received, not yet   | free             |
//     | (consumed) | as frames    | a whole frame known | (room to read)   |
//     0         consumed        parsed               received          capacity
//
// Frames returned by next_frame() point into the buffer and stay valid until release(). release()
// wipes their bytes at once: they hold presented keys, and a key must not outlive its answer.
//
// An invalid header is final: frame boundaries are lost, so the owner sends the error and closes
// the connection.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>

#include "base/claims.h"
#include "latchkey/wire.h"

namespace latchkey {

struct FrameHeader {
  std::uint8_t type;
  std::uint32_t length;
  std::uint64_t request_id;
};

struct Frame {
  FrameHeader header;
  Bytes body;
};

// Reads a header. Returns nullopt if it is valid. `length_max` is the reader's own limit.
[[nodiscard]] std::optional<latchkey_error> parse_header(
    std::span<const std::uint8_t, LATCHKEY_HEADER_BYTES> bytes, std::size_t length_max,
    FrameHeader& header);

class FrameBuffer {
 public:
  // `frame_max` is the longest accepted frame, `last_type` the greatest accepted type; 0 accepts
  // any.
  explicit FrameBuffer(std::size_t frame_max, std::uint8_t last_type = 0);
  ~FrameBuffer();
  FrameBuffer(const FrameBuffer&) = delete;
  FrameBuffer& operator=(const FrameBuffer&) = delete;

  // Space for the next read; never empty after release(). No frame may be handed out at this time.
  [[nodiscard]] std::span<std::uint8_t> writable();
  // Records that `count` bytes were read into writable().
  void commit(std::size_t count);

  // Returns the next complete frame. Returns nullopt if more bytes are needed, or if error() says
  // why no further frame can follow.
  [[nodiscard]] std::optional<Frame> next_frame();
  [[nodiscard]] std::optional<latchkey_error> error() const { return error_; }
  // The request id of the invalid header; zero where it could not be read.
  [[nodiscard]] std::uint64_t error_request_id() const { return error_request_id_; }

  // Wipes all frames handed out; they become invalid.
  void release();
  // True while a frame is incomplete; the stall deadline then applies.
  [[nodiscard]] bool mid_frame() const { return parsed_ < received_; }

 private:
  void check() const;

  std::size_t capacity_;
  std::size_t frame_max_;
  std::uint8_t last_type_;
  std::unique_ptr<std::uint8_t[]> bytes_;
  std::size_t consumed_ = 0;
  std::size_t parsed_ = 0;
  std::size_t received_ = 0;
  std::optional<latchkey_error> error_;
  std::uint64_t error_request_id_ = 0;
};

}  // namespace latchkey
