#include "daemon/unix/connection.h"

#include <openssl/crypto.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <limits>
#include <utility>

#include "base/clock.h"
#include "base/wire_names.h"

namespace latchkey {
namespace {

constexpr std::int64_t kLingerNs = 1'000'000'000;
constexpr std::int64_t kNoDeadline = std::numeric_limits<std::int64_t>::max();

}  // namespace

void Round::answer(const WorkerContext& context) {
  batch.answer(context);
  for (UnixConnection* connection : connections) connection->reply();
  connections.clear();
}

UnixConnection::UnixConnection(Descriptor socket, ConnectionHost& host, Round& round,
                               const Peer& peer, const CallerId& id, const Rights& rights)
    : socket_(std::move(socket)),
      host_(host),
      round_(round),
      peer_(peer),
      id_(id),
      conversation_(rights) {}

void UnixConnection::apply(const CallerRules& rules) {
  const auto rights = rules.rights_of(peer_);
  if (!rights) return close();
  conversation_.set_rights(*rights);
}

void UnixConnection::start() { enter(State::kReading); }

// What cannot be acted on now is remembered: the kernel does not report it again. Bytes are read
// when the connection has its turn: reading from a thousand connections first would make all other
// callers wait.
void UnixConnection::notice(const Readiness& change, std::int64_t now_ns) {
  unread_ = unread_ || change.readable;
  ended_ = ended_ || change.ended;
  switch (state_) {
    case State::kReading:
      if (!unread_) return;
      received_ns_ = now_ns;
      return wait_turn();
    case State::kWriting:
      if (change.writable) wait_turn();
      return;
    case State::kLingering: return discard_on();
    case State::kReady:
    case State::kSyncing:
    case State::kClosed: return;
  }
}

void UnixConnection::refuse(latchkey_error code) {
  encode_error(out_, 0, code, error_sentence(code));
  write(Conversation::Next::kClose);
}

// Reads the available bytes. Returns false if there is nothing to answer.
bool UnixConnection::receive() {
  const auto room = in_.writable();
  const ssize_t count = recv(socket_.get(), room.data(), room.size(), MSG_DONTWAIT);
  // A stream that gives less than the room has nothing left (epoll(7)), except its end.
  unread_ = count > 0 && (ended_ || static_cast<std::size_t>(count) == room.size());
  if (count < 0 && errno == EAGAIN && !draining_) {
    received_ns_ = 0;
    read_on();
    return false;
  }
  if (count <= 0) {
    close();  // closed or half-closed by the caller: all of its requests have been answered
    return false;
  }
  in_.commit(static_cast<std::size_t>(count));
  return true;
}

void UnixConnection::read_on() {
  enter(State::kReading);
  if (!unread_) return;
  received_ns_ = boot_ns();
  wait_turn();
}

void UnixConnection::wait_turn() {
  enter(State::kReady);
  host_.ready(*this);
}

std::size_t UnixConnection::turn() {
  if (state_ == State::kLingering) {
    discard();
  } else if (state_ == State::kReady && held_bytes_ > 0) {
    write_on();  // the rest that the socket did not take at once
  } else if (state_ == State::kReady && (left_ || receive())) {
    conversation_.take(in_, out_, host_.context(), round_.batch);
    round_.connections.push_back(this);
    return conversation_.work();
  }
  return 0;
}

void UnixConnection::reply() {
  const auto next = conversation_.finish(in_, out_, host_.context());
  if (const std::uint64_t keys = conversation_.take_unknown()) host_.asked_in_vain(id_, keys);
  if (out_.size() == 0) return written(next);
  frame_deadline_ns_ = 0;  // a frame that has begun by now is another one
  write(next);
}

void UnixConnection::write(Conversation::Next then) {
  then_ = then;
  sent_ = 0;
  write_on();
}

// Most replies fit into the socket's buffer at once. The rest of a longer one is written in later
// turns, when there is room, because copying large replies takes time from other callers, too.
void UnixConnection::write_on() {
  const ssize_t count =
      send(socket_.get(), out_.data() + sent_, out_.size() - sent_, MSG_NOSIGNAL | MSG_DONTWAIT);
  if (count < 0 && errno != EAGAIN) return close();
  if (count > 0) sent_ += static_cast<std::size_t>(count);
  if (sent_ == out_.size()) {
    release_held();
    out_.clear();
    write_deadline_ns_ = 0;
    return written(then_);
  }
  if (held_bytes_ == 0) {
    held_bytes_ = out_.capacity();
    if (!host_.admission().hold(id_, held_bytes_)) {
      held_bytes_ = 0;
      host_.context().stats->closed_hoarding.add();
      return close();
    }
  }
  enter(State::kWriting);
  host_.await_writable(*this);
}

void UnixConnection::release_held() {
  if (held_bytes_ > 0) host_.admission().free(id_, std::exchange(held_bytes_, 0));
}

void UnixConnection::written(Conversation::Next then) {
  left_ = then == Conversation::Next::kWrite || then == Conversation::Next::kSync;
  switch (then) {
    case Conversation::Next::kRead:
      if (draining_) {
        unread_ = true;
        return wait_turn();
      }
      return read_on();
    case Conversation::Next::kWrite: return wait_turn();
    case Conversation::Next::kSync: return sync();
    case Conversation::Next::kClose: return linger();
  }
}

void UnixConnection::sync() {
  enter(State::kSyncing);
  received_ns_ = 0;  // the duration of a sync depends on the databases, so it is not measured
  const std::int64_t since_ns = boot_ns();
  const Conversation::Sync& wanted = conversation_.sync();
  host_.sync(
      wanted.sources, std::chrono::milliseconds(wanted.timeout_ms),
      [self = std::static_pointer_cast<UnixConnection>(shared_from_this()),
       since_ns](bool in_force) {
        if (self->state_ == State::kClosed) return;
        const std::uint64_t id = self->conversation_.sync().request_id;
        if (in_force) {
          encode_synced(self->out_, id, static_cast<std::uint64_t>((boot_ns() - since_ns) / 1000));
        } else {
          encode_error(self->out_, id, LATCHKEY_TIMED_OUT, error_sentence(LATCHKEY_TIMED_OUT));
        }
        self->wait_turn();
      });
}

// ---- the end

// Closing a socket with unread bytes makes the kernel discard the data that the caller has not read
// yet, including the error message. So this shuts down the sending half, discards the caller's data
// for kLingerNs, then closes.
void UnixConnection::linger() {
  enter(State::kLingering);
  shutdown(socket_.get(), SHUT_WR);
  unread_ = true;
  discard_on();
}

// Discards bytes in turns, like all reading, because a refused caller can send as fast as others.
void UnixConnection::discard_on() {
  if (!unread_ || discarding_) return;
  discarding_ = true;
  host_.ready(*this);
}

void UnixConnection::discard() {
  discarding_ = false;
  std::array<char, 4096> trash;
  const ssize_t count = recv(socket_.get(), trash.data(), trash.size(), MSG_DONTWAIT);
  OPENSSL_cleanse(trash.data(), trash.size());
  unread_ = count > 0;
  if (count == 0 || (count < 0 && errno != EAGAIN)) return close();
  discard_on();
}

void UnixConnection::drain() {
  draining_ = true;
  if (state_ != State::kReading) return;
  unread_ = true;  // its turn takes only the bytes that the kernel holds
  wait_turn();
}

void UnixConnection::close() {
  if (state_ == State::kClosed) return;
  state_ = State::kClosed;
  release_held();
  socket_.close();
  host_.closed(*this);
}

// ---- deadlines

void UnixConnection::enter(State state) {
  const std::int64_t stall_ns = host_.limits().stall_timeout.count();
  switch (state) {
    case State::kReading:
      if (!in_.mid_frame()) {
        frame_deadline_ns_ = 0;
        idle_since_ns_ = boot_ns();
        if (received_ns_ != 0) {
          host_.context().stats->answered_in.add(idle_since_ns_ - std::exchange(received_ns_, 0));
        }
      } else if (frame_deadline_ns_ == 0) {
        // The deadline counts from the frame's first byte; sending more bytes does not extend it.
        frame_deadline_ns_ = boot_ns() + stall_ns;
      }
      deadline_ns_ = frame_deadline_ns_;
      break;
    case State::kReady: deadline_ns_ = kNoDeadline; break;  // the caller waits for the daemon
    case State::kWriting:
      // The deadline counts from the first incomplete write; reading a little does not extend it.
      if (write_deadline_ns_ == 0) write_deadline_ns_ = boot_ns() + stall_ns;
      deadline_ns_ = write_deadline_ns_;
      break;
    case State::kLingering:
      if (state_ != State::kLingering) deadline_ns_ = boot_ns() + kLingerNs;
      break;
    case State::kSyncing:
      // The request has a timeout of its own; this deadline is only a safeguard.
      deadline_ns_ = boot_ns() + std::int64_t{2} * LATCHKEY_SYNC_TIMEOUT_MS_MAX * 1'000'000;
      break;
    case State::kClosed: break;
  }
  state_ = state;
}

void UnixConnection::check_deadline(std::int64_t now_ns, std::int64_t idle_ns) {
  if (state_ == State::kClosed) return;
  const bool idle = state_ == State::kReading && frame_deadline_ns_ == 0;
  if (now_ns < (idle ? idle_since_ns_ + idle_ns : deadline_ns_)) return;
  WorkerStats& stats = *host_.context().stats;
  if (idle) {
    stats.closed_idle.add();
  } else if (state_ != State::kLingering) {  // a lingering connection has received its refusal
    stats.closed_stalled.add();
  }
  close();
}

}  // namespace latchkey
