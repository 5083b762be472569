// One connection: moves bytes between a socket and a Conversation, and enforces deadlines.
//
// It waits for its turn, reads, takes requests, and sends the replies once the door has answered
// the batch; only then it reads again. So the daemon stops reading from a caller that does not read
// its replies. The caller's unread replies use no more memory than Admission permits, and only
// until the connection's deadline. A connection is used only on its worker's thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/descriptor.h"
#include "daemon/server/connection.h"
#include "daemon/unix/batch.h"
#include "daemon/unix/conversation.h"
#include "protocol/codec.h"
#include "protocol/frame_buffer.h"

namespace latchkey {

class UnixConnection;

// The turns since the last Door::answer().
struct Round {
  Batch batch;
  std::vector<UnixConnection*> connections;  // those whose replies it sends

  void answer(const WorkerContext& context);
};

class UnixConnection : public Connection {
 public:
  // `round` belongs to the door, which outlives the connection.
  UnixConnection(Descriptor socket, ConnectionHost& host, Round& round, const Peer& peer,
                 const CallerId& id, const Rights& rights);

  void start() override;
  void notice(const Readiness& change, std::int64_t now_ns) override;
  [[nodiscard]] std::size_t turn() override;
  // Sends the replies to the requests of the last turn.
  void reply();
  void refuse(latchkey_error code) override;
  void drain() override;
  void apply(const CallerRules& rules) override;
  void close() override;
  void check_deadline(std::int64_t now_ns, std::int64_t idle_ns) override;
  [[nodiscard]] int socket() const override { return socket_.get(); }
  [[nodiscard]] const CallerId& id() const override { return id_; }

 private:
  enum class State { kReading, kReady, kWriting, kSyncing, kLingering, kClosed };

  void read_on();
  [[nodiscard]] bool receive();
  void wait_turn();
  void write(Conversation::Next then);
  void write_on();
  void written(Conversation::Next then);
  void release_held();
  void sync();
  void linger();
  void discard_on();
  void discard();
  void enter(State state);

  Descriptor socket_;
  ConnectionHost& host_;
  Round& round_;
  const Peer peer_;
  const CallerId id_;
  Conversation conversation_;
  FrameBuffer in_{LATCHKEY_REQUEST_BYTES_MAX, LATCHKEY_WHY};
  OutBuffer out_;
  State state_ = State::kReading;
  bool draining_ = false;
  bool unread_ = false;                 // the kernel may hold bytes, or the end, to be read
  bool ended_ = false;                  // the end has been reported: it follows those bytes
  bool left_ = false;                   // `in_` may hold requests that no turn has taken yet
  bool discarding_ = false;             // while it lingers: it waits for a turn
  std::size_t sent_ = 0;                // bytes of `out_`
  Conversation::Next then_{};           // the next step once `out_` is sent
  std::size_t held_bytes_ = 0;          // of replies, as Admission counts them
  std::int64_t received_ns_ = 0;        // when the socket was last noticed to be readable; 0: none
  std::int64_t idle_since_ns_ = 0;      // valid while it is reading and no frame has begun
  std::int64_t frame_deadline_ns_ = 0;  // of an incomplete frame; 0: there is none
  std::int64_t write_deadline_ns_ = 0;  // of replies that the socket did not take at once; 0: none
  std::int64_t deadline_ns_ = 0;
};

}  // namespace latchkey
