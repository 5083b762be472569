// The handshake of two connections: the steps between connecting and the first barrier, for a
// database that notifies changes on one connection and is read on another.
//
// Pure. Events and the time go in, steps come out; the database's code carries each step out and
// reports the result. So a test can replay a handshake and make it fail at each step.
//
// The argument, in the order in which things happen:
//   1. The reading connection learns which server answers, before it reads anything.
//   2. The listening connection listens. LISTEN may have to pass a long notification queue; its
//      deadline is extended while it works.
//   3. When both are done, the reading connection sends a nonce, and the listening one must receive
//      it while no query of its own runs. That proves that both reach the same server, and that
//      everything between keeps the session (a pooler in transaction mode does not).
//   4. The listening connection prepares the heartbeat. Then the policy (refresh.h) takes over.
#pragma once

#include <cstdint>
#include <limits>

namespace latchkey {

class Handshake {
 public:
  static constexpr std::int64_t kNever = std::numeric_limits<std::int64_t>::max();

  // All in nanoseconds.
  struct Times {
    std::int64_t connect_ns = 5'000'000'000;
    std::int64_t step_ns = 10'000'000'000;    // for each other step
    std::int64_t meeting_ns = 5'000'000'000;  // for the nonce of the meeting
    // The progress of a LISTEN that takes longer than this is checked, at this interval.
    std::int64_t look_ns = 1'000'000'000;
    // LISTEN has to pass the notifications in the queue. For a whole queue (8 GB) it may take this
    // long before the connection is given up: a new LISTEN would start at the queue's tail again,
    // which then could not be freed.
    std::int64_t whole_queue_ns = 3'600'000'000'000;
    std::int64_t meet_again_ns = 1'000'000'000;  // after a full queue has refused the nonce
  };
  // Below this usage of the queue LISTEN gets no extra time.
  static constexpr double kQueueMin = 0.0005;

  enum class Step {
    kWait,         // nothing to do before wake_ns() or an event
    kIdentify,     // read the server's identity, over the reading connection, then inspected()
    kListen,       // LISTEN over the listening connection, then listening()
    kAskProgress,  // ask for LISTEN's progress over the reading connection, then progress()
    kMeet,         // send a nonce over the reading connection, then met() or meeting_refused()
    kPrepare,      // prepare the heartbeat over the listening connection, then prepared()
    kReady,        // returned once: the handshake is over
  };

  Handshake(Times times, std::int64_t now_ns);

  void read_connected() { reading_ = Lane::kConnected; }
  void listen_connected() { listening_ = Lane::kConnected; }
  void inspected();
  void listening();
  // `works`: LISTEN is at work; `queue`: usage of the notification queue (0 to 1). Returns true if
  // LISTEN gets more time.
  bool progress(bool works, double queue, std::int64_t now_ns);
  void met() { meeting_ = Meeting::kHeard; }
  // A full notification queue refused the nonce. LISTEN costs most there, so the connections are
  // kept.
  void meeting_refused(std::int64_t now_ns);
  void prepared();

  // `read_idle`: no query runs on the reading connection. Call again until it returns kWait.
  [[nodiscard]] Step next(std::int64_t now_ns, bool read_idle);

  [[nodiscard]] bool over() const { return over_; }
  // The time at which next() may have a step without an event.
  [[nodiscard]] std::int64_t wake_ns() const;
  // The times at which a connection has failed because of a missing answer.
  [[nodiscard]] std::int64_t read_deadline_ns() const { return read_deadline_ns_; }
  [[nodiscard]] std::int64_t listen_deadline_ns() const { return listen_deadline_ns_; }

 private:
  enum class Lane { kConnecting, kConnected, kAsked, kDone };
  enum class Meeting { kWanted, kSent, kHeard, kDone };

  Times times_;
  Lane reading_ = Lane::kConnecting;
  Lane listening_ = Lane::kConnecting;
  Meeting meeting_ = Meeting::kWanted;
  bool prepared_ = false;
  bool over_ = false;
  std::int64_t listen_since_ns_ = 0;
  std::int64_t look_ns_ = kNever;  // next check of LISTEN
  std::int64_t no_meeting_before_ns_ = 0;
  std::int64_t read_deadline_ns_;
  std::int64_t listen_deadline_ns_;
};

}  // namespace latchkey
