// One connection: moves bytes between a socket and a Conversation, keeps its deadlines, nothing
// else.
//
// It reads, waits for its turn, answers, writes, and only then reads again. So a caller who does
// not read its replies stops being read from, and costs what Admission lets it hold until its
// deadline ends it. It belongs to its worker's thread.
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
  // `scratch` is the door's, which outlives it.
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
  bool unread_ = false;                 // something has come that is still with the kernel
  std::size_t sent_ = 0;                // of `out_`
  Conversation::Next then_{};           // once all of it is sent
  std::size_t held_bytes_ = 0;          // of replies, as Admission counts them
  std::int64_t received_ns_ = 0;        // when what is being answered was noticed; 0: nothing
  std::int64_t idle_since_ns_ = 0;      // if it is reading and no frame has begun
  std::int64_t frame_deadline_ns_ = 0;  // of the frame that has begun; 0: none has
  std::int64_t write_deadline_ns_ = 0;  // of replies that the socket did not take at once; 0: none
  std::int64_t deadline_ns_ = 0;
};

}  // namespace latchkey
