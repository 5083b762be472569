// The dialogue of a connection, from bytes to bytes: request frames in, reply frames out. It uses
// no socket and no database, and its clock is a parameter, so tests can run it without a
// connection.
//
// A turn has three steps: take() the received frames, answer() the batch, which may hold requests
// of other conversations, too, and finish(). Replies are in the order of the requests.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "daemon/server/context.h"
#include "daemon/unix/batch.h"
#include "protocol/codec.h"
#include "protocol/frame_buffer.h"

namespace latchkey {

class Conversation {
 public:
  enum class Next {
    kRead,   // everything received is answered: send `out`, then read on
    kWrite,  // send `out`, then have another turn: frames may be left
    kSync,   // send `out`, then carry out sync(), append its reply, have another turn
    kClose,  // send `out`, then close
  };
  struct Sync {
    std::uint64_t request_id = 0;
    std::uint32_t timeout_ms = 0;
    SourceMask sources = 0;
  };

  explicit Conversation(Rights rights) : rights_(rights) {}

  // Takes frames, within the limits of a turn. Verify requests wait in `batch`; any other request
  // is answered at once, after all that waits there.
  void take(FrameBuffer& in, OutBuffer& out, const WorkerContext& context, Batch& batch);
  // The work of the last take().
  [[nodiscard]] std::size_t work() const { return work_; }
  // Called after Batch::answer(). Wipes the frames taken.
  [[nodiscard]] Next finish(FrameBuffer& in, OutBuffer& out, const WorkerContext& context);
  // Called after a reload, which may have changed the caller's rights.
  void set_rights(const Rights& rights) { rights_ = rights; }
  // The sync that take() stopped at.
  [[nodiscard]] const Sync& sync() const { return sync_; }
  // The number of keys answered as unknown since the last call.
  [[nodiscard]] std::uint64_t take_unknown() { return std::exchange(unknown_, 0); }

  // Once replies reach this size, or work reaches the context's `turn_work`, replies are sent
  // before more requests are answered.
  static constexpr std::size_t kOutBytesMax = std::size_t{256} * 1024;
  // The measured cost of requests besides their keys. A `why` looks up each source and writes JSON
  // of everything that it finds; a `status` is made at intervals, and copied for each request.
  static constexpr std::size_t kWorkOfRequest = 1, kWorkOfWhy = 512, kWorkOfStatus = 64;
  static constexpr std::size_t kKeyBytesOfWork = 128;     // bytes that are digested once
  static constexpr std::size_t kStatusBytesOfWork = 512;  // bytes that are copied
  static constexpr std::size_t kScopesOfWork = 8;         // scopes compared with those of one key

 private:
  [[nodiscard]] bool may_ask(std::uint8_t type) const;
  [[nodiscard]] Next take(const Frame& frame, OutBuffer& out, const WorkerContext& context,
                          Batch& batch);
  [[nodiscard]] Next take_verify(const Frame& frame, OutBuffer& out, const WorkerContext& context,
                                 Batch& batch);
  [[nodiscard]] Next answer_status(const Frame& frame, OutBuffer& out,
                                   const WorkerContext& context);
  [[nodiscard]] Next take_why(const Frame& frame, OutBuffer& out, const WorkerContext& context);
  // kRead if this turn may take another request, else kWrite.
  [[nodiscard]] Next go_on(const OutBuffer& out, const WorkerContext& context) const {
    return out.size() < kOutBytesMax && work_ < context.turn_work ? Next::kRead : Next::kWrite;
  }
  Next refuse(const Frame& frame, latchkey_error code, OutBuffer& out,
              const WorkerContext& context);

  Rights rights_;
  Sync sync_;
  Next next_ = Next::kRead;    // the result of take()
  std::size_t work_ = 0;       // see work()
  std::uint64_t unknown_ = 0;  // see take_unknown()
};

}  // namespace latchkey
