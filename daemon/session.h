// One connection: moves bytes between a socket and a Conversation, keeps its deadlines, nothing
// else.
//
// It reads, waits for its turn, answers, writes, and only then reads again. So a caller who does
// not read its replies stops being read from, and costs what Admission lets it hold until its
// deadline ends it. A session belongs to its worker's thread.
#pragma once

#include <boost/asio/local/stream_protocol.hpp>
#include <cstdint>
#include <functional>
#include <memory>

#include "daemon/admission.h"
#include "daemon/conversation.h"
#include "daemon/options.h"
#include "protocol/codec.h"
#include "protocol/frame_buffer.h"

namespace latchkey {

class Session;

// What sessions need of their worker.
class SessionHost {
 public:
  virtual ~SessionHost() = default;
  virtual const ConversationContext& context() = 0;
  virtual BatchScratch& scratch() = 0;
  virtual const LimitOptions& limits() = 0;
  virtual Admission& admission() = 0;
  // The session has something to answer: its turn() comes, at once or after others'. `again`: it
  // had one just now.
  virtual void ready(Session& session, bool again) = 0;
  // Its caller was told of so many keys that they are unknown.
  virtual void asked_in_vain(const CallerId& id, std::uint64_t keys) = 0;
  // Calls `done` once, on this worker's thread: true if everything committed before is in force.
  virtual void sync(const Conversation::Sync& sync, std::function<void(bool)> done) = 0;
  virtual void closed(Session& session) = 0;
};

class Session : public std::enable_shared_from_this<Session> {
 public:
  using Socket = boost::asio::local::stream_protocol::socket;

  // `id` is whose quotas it draws on until it is closed, whatever a reload makes of the rules.
  Session(Socket socket, SessionHost& host, const Peer& peer, const CallerId& id,
          const Rights& rights);

  void start();
  // Reads what has arrived, and answers some of it.
  void turn();
  // Says why not, and closes.
  void refuse(latchkey_error code);
  // Answers what has arrived, then closes.
  void drain();
  // The rules have changed: whoever is not allowed any more is closed.
  void apply(const CallerRules& rules);
  void close();
  // Ends the session if it has outstayed one of its deadlines. `idle_ns`: how long one may stay
  // that asks for nothing.
  void check_deadline(std::int64_t now_ns, std::int64_t idle_ns);
  [[nodiscard]] const CallerId& id() const { return id_; }

 private:
  enum class State { kReading, kReady, kWriting, kSyncing, kLingering, kClosed };

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
  SessionHost& host_;
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
