// One connection: moves bytes between a socket and a Conversation, and enforces deadlines.
//
// It waits for its turn, reads, answers, writes, and only then reads again. So the daemon stops
// reading from a caller that does not read its replies. The caller's unread replies use no more
// memory than Admission permits, and only until the connection's deadline. A connection is used
// only on its worker's thread.
#pragma once

#include <cstdint>
#include <memory>

#include "daemon/server/connection.h"
#include "daemon/unix/conversation.h"
#include "protocol/codec.h"
#include "protocol/frame_buffer.h"

namespace latchkey {

class UnixConnection : public Connection {
 public:
  // `scratch` belongs to the door, which outlives the connection.
  UnixConnection(Socket socket, ConnectionHost& host, BatchScratch& scratch, const Peer& peer,
                 const CallerId& id, const Rights& rights);

  void start() override;
  void turn() override;
  void refuse(latchkey_error code) override;
  void drain() override;
  void apply(const CallerRules& rules) override;
  void close() override;
  void check_deadline(std::int64_t now_ns, std::int64_t idle_ns) override;
  [[nodiscard]] const CallerId& id() const override { return id_; }

 private:
  enum class State { kReading, kReady, kWriting, kSyncing, kLingering, kClosed };

  [[nodiscard]] std::shared_ptr<UnixConnection> self();
  void read();
  [[nodiscard]] bool receive();
  void wait_turn(bool again);
  void write(Conversation::Next then);
  void write_on();
  void written(Conversation::Next then);
  void release_held();
  void sync();
  void linger();
  void throw_away();
  void enter(State state);

  Socket socket_;
  ConnectionHost& host_;
  BatchScratch& scratch_;
  const Peer peer_;
  const CallerId id_;
  Conversation conversation_;
  FrameBuffer in_{LATCHKEY_REQUEST_BYTES_MAX, LATCHKEY_WHY};
  OutBuffer out_;
  State state_ = State::kReading;
  bool draining_ = false;
  bool unread_ = false;                 // the kernel holds bytes that have not been read
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
