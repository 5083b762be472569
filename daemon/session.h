// One connection: moves bytes between a socket and a Conversation, keeps its deadlines, nothing
// else.
//
// It reads, answers, writes, and only then reads again. So a caller who does not read its replies
// stops being read from, and costs one bounded buffer until its deadline ends it. A session belongs
// to its worker's thread.
#pragma once

#include <boost/asio/local/stream_protocol.hpp>
#include <cstdint>
#include <functional>
#include <memory>

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
  // Calls `done` once, on this worker's thread: true if everything committed before is in force.
  virtual void sync(const Conversation::Sync& sync, std::function<void(bool)> done) = 0;
  virtual void closed(Session& session) = 0;
};

class Session : public std::enable_shared_from_this<Session> {
 public:
  using Socket = boost::asio::local::stream_protocol::socket;

  Session(Socket socket, SessionHost& host, const Peer& peer, const Rights& rights);

  void start();
  // Says why not, and closes.
  void refuse(latchkey_error code);
  // Answers what has arrived, then closes.
  void drain();
  // The rules have changed: whoever is not allowed any more is closed.
  void apply(const CallerRules& rules);
  void close();
  // Ends the session if it has outstayed one of its deadlines.
  void check_deadline(std::int64_t now_ns);

 private:
  enum class State { kReading, kWriting, kSyncing, kLingering, kClosed };

  void read();
  void received(std::size_t count);
  void answer();
  void write(Conversation::Next then);
  void written(Conversation::Next then);
  void sync();
  void linger();
  void read_last();
  void enter(State state);

  Socket socket_;
  SessionHost& host_;
  const Peer peer_;
  Conversation conversation_;
  FrameBuffer in_{LATCHKEY_REQUEST_BYTES_MAX};
  OutBuffer out_;
  State state_ = State::kReading;
  bool mid_frame_ = false;
  bool draining_ = false;
  std::int64_t deadline_ns_ = 0;
};

}  // namespace latchkey
