#include "protocol/frame_buffer.h"

#include <openssl/crypto.h>

#include <cassert>
#include <cstring>

#include "base/bytes.h"

namespace latchkey {

std::optional<latchkey_error> parse_header(
    std::span<const std::uint8_t, LATCHKEY_HEADER_BYTES> bytes, std::size_t length_max,
    FrameHeader& header) {
  header.type = bytes[1];
  header.length = load_le<std::uint32_t>(bytes.data() + 4);
  header.request_id = load_le<std::uint64_t>(bytes.data() + 8);
  if (bytes[0] != LATCHKEY_VERSION) return LATCHKEY_BAD_VERSION;
  if (load_le<std::uint16_t>(bytes.data() + 2) != 0) return LATCHKEY_BAD_RESERVED;
  if (header.length < LATCHKEY_HEADER_BYTES || header.length > length_max) {
    return LATCHKEY_BAD_LENGTH;
  }
  return std::nullopt;
}

FrameBuffer::FrameBuffer(std::size_t frame_max, std::uint8_t last_type)
    : capacity_(frame_max),
      frame_max_(frame_max),
      last_type_(last_type),
      bytes_(std::make_unique_for_overwrite<std::uint8_t[]>(frame_max)) {
  assert(frame_max >= LATCHKEY_HEADER_BYTES);
}

FrameBuffer::~FrameBuffer() { OPENSSL_cleanse(bytes_.get() + consumed_, received_ - consumed_); }

void FrameBuffer::check() const {
  assert(consumed_ <= parsed_ && parsed_ <= received_ && received_ <= capacity_);
}

std::span<std::uint8_t> FrameBuffer::writable() {
  assert(consumed_ == parsed_ && "release() before reading on");
  return {bytes_.get() + received_, capacity_ - received_};
}

void FrameBuffer::commit(std::size_t count) {
  received_ += count;
  check();
}

std::optional<Frame> FrameBuffer::next_frame() {
  if (error_ || received_ == parsed_) return std::nullopt;
  const std::uint8_t* start = bytes_.get() + parsed_;
  // Checked on the first byte: a peer that speaks another protocol may send a few bytes and then
  // wait.
  if (start[0] != LATCHKEY_VERSION) error_ = LATCHKEY_BAD_VERSION;
  if (error_ || received_ - parsed_ < LATCHKEY_HEADER_BYTES) return std::nullopt;
  FrameHeader header{};
  error_ = parse_header(
      std::span<const std::uint8_t, LATCHKEY_HEADER_BYTES>(start, LATCHKEY_HEADER_BYTES),
      frame_max_, header);
  // Checked before the body arrives, which may take long.
  const bool known = last_type_ == 0 || (header.type != 0 && header.type <= last_type_);
  if (!error_ && !known) error_ = LATCHKEY_BAD_TYPE;
  if (error_) {
    // Another version may place its request id elsewhere; echoing these bytes would be a guess.
    error_request_id_ = *error_ == LATCHKEY_BAD_VERSION ? 0 : header.request_id;
    return std::nullopt;
  }
  if (received_ - parsed_ < header.length) return std::nullopt;
  parsed_ += header.length;
  check();
  return Frame{header, Bytes(start + LATCHKEY_HEADER_BYTES, header.length - LATCHKEY_HEADER_BYTES)};
}

void FrameBuffer::release() {
  OPENSSL_cleanse(bytes_.get() + consumed_, parsed_ - consumed_);
  consumed_ = parsed_;
  // Moves an incomplete frame to the front, so that a frame of maximum size always fits, and wipes
  // its old place: memmove leaves a copy of part of a key there.
  const std::size_t left = received_ - parsed_;
  if (left > 0 && consumed_ > 0) {
    std::memmove(bytes_.get(), bytes_.get() + parsed_, left);
    const std::size_t stale_from = left > parsed_ ? left : parsed_;
    OPENSSL_cleanse(bytes_.get() + stale_from, received_ - stale_from);
  }
  consumed_ = parsed_ = 0;
  received_ = left;
  check();
}

}  // namespace latchkey
