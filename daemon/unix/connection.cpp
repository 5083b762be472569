#include "daemon/unix/connection.h"

#include <openssl/crypto.h>

#include <array>
#include <boost/asio/buffer.hpp>
#include <limits>
#include <utility>

#include "base/clock.h"
#include "base/wire_names.h"

namespace latchkey {
namespace asio = boost::asio;
namespace {

constexpr std::int64_t kLingerNs = 1'000'000'000;
constexpr std::int64_t kNoDeadline = std::numeric_limits<std::int64_t>::max();

}  // namespace

UnixConnection::UnixConnection(Socket socket, ConnectionHost& host, BatchScratch& scratch,
                               const Peer& peer, const CallerId& id, const Rights& rights)
    : socket_(std::move(socket)),
      host_(host),
      scratch_(scratch),
      peer_(peer),
      id_(id),
      conversation_(rights) {}

std::shared_ptr<UnixConnection> UnixConnection::self() {
  return std::static_pointer_cast<UnixConnection>(shared_from_this());
}

void UnixConnection::apply(const CallerRules& rules) {
  const auto rights = rules.rights_of(peer_);
  if (!rights) return close();
  conversation_.set_rights(*rights);
}

void UnixConnection::start() {
  boost::system::error_code ignored;
  socket_.non_blocking(true, ignored);  // for reads and writes without async_ functions
  enter(State::kReading);
  read();
}

void UnixConnection::refuse(latchkey_error code) {
  encode_error(out_, 0, code, error_sentence(code));
  write(Conversation::Next::kClose);
}

// Bytes are read when the connection has its turn: reading from a thousand connections first would
// make all other callers wait.
void UnixConnection::read() {
  socket_.async_wait(Socket::wait_read,
                     [self = this->self()](const boost::system::error_code& error) {
                       if (self->state_ == State::kClosed) return;
                       if (error && !self->draining_) return self->close();
                       self->received_ns_ = boot_ns();
                       self->unread_ = true;
                       self->wait_turn(false);
                     });
}

// Reads the available bytes. Returns false if there is nothing to answer.
bool UnixConnection::receive() {
  unread_ = false;
  boost::system::error_code error;
  const auto room = in_.writable();
  const std::size_t count = socket_.read_some(asio::buffer(room.data(), room.size()), error);
  if (error == asio::error::would_block && !draining_) {
    received_ns_ = 0;
    enter(State::kReading);
    read();
    return false;
  }
  if (error || count == 0) {
    close();  // closed or half-closed by the caller: all of its requests have been answered
    return false;
  }
  in_.commit(count);
  return true;
}

void UnixConnection::wait_turn(bool again) {
  enter(State::kReady);
  host_.ready(*this, again);
}

void UnixConnection::turn() {
  if (state_ == State::kClosed) return;
  if (state_ == State::kLingering) return throw_away();
  if (held_bytes_ > 0) return write_on();  // the rest that the socket did not take at once
  if (unread_ && !receive()) return;
  const auto next = conversation_.answer(in_, out_, host_.context(), scratch_);
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
  boost::system::error_code error;
  sent_ += socket_.write_some(asio::buffer(out_.data() + sent_, out_.size() - sent_), error);
  if (error && error != asio::error::would_block) return close();
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
  socket_.async_wait(Socket::wait_write,
                     [self = this->self()](const boost::system::error_code& failed) {
                       if (self->state_ == State::kClosed) return;
                       if (failed) return self->close();
                       self->wait_turn(false);
                     });
}

void UnixConnection::release_held() {
  if (held_bytes_ > 0) host_.admission().free(id_, std::exchange(held_bytes_, 0));
}

void UnixConnection::written(Conversation::Next then) {
  switch (then) {
    case Conversation::Next::kRead:
      if (draining_) {
        unread_ = true;
        return wait_turn(true);  // a caller that continues to ask must not block other callers
      }
      enter(State::kReading);
      return read();
    case Conversation::Next::kWrite: return wait_turn(true);
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
      [self = this->self(), since_ns](bool in_force) {
        if (self->state_ == State::kClosed) return;
        const std::uint64_t id = self->conversation_.sync().request_id;
        if (in_force) {
          encode_synced(self->out_, id, static_cast<std::uint64_t>((boot_ns() - since_ns) / 1000));
        } else {
          encode_error(self->out_, id, LATCHKEY_TIMED_OUT, error_sentence(LATCHKEY_TIMED_OUT));
        }
        self->wait_turn(false);
      });
}

// ---- the end

// Closing a socket with unread bytes makes the kernel discard the data that the caller has not read
// yet, including the error message. So this shuts down the sending half, discards the caller's data
// for kLingerNs, then closes.
void UnixConnection::linger() {
  if (state_ != State::kLingering) {
    enter(State::kLingering);
    boost::system::error_code ignored;
    socket_.non_blocking(true, ignored);  // not set yet if refuse() was called instead of start()
    socket_.shutdown(Socket::shutdown_send, ignored);
  }
  socket_.async_wait(Socket::wait_read,
                     [self = this->self()](const boost::system::error_code& error) {
                       if (self->state_ == State::kClosed) return;
                       if (error) return self->close();
                       self->host_.ready(*self, true);
                     });
}

// Discards bytes in turns, like all reading, because a refused caller can send as fast as others.
void UnixConnection::throw_away() {
  std::array<char, 4096> trash;
  boost::system::error_code error;
  const std::size_t count = socket_.read_some(asio::buffer(trash), error);
  OPENSSL_cleanse(trash.data(), count);
  if (error && error != asio::error::would_block) return close();
  linger();
}

void UnixConnection::drain() {
  draining_ = true;
  if (state_ == State::kReading) {
    boost::system::error_code ignored;
    socket_.cancel(ignored);  // read()'s handler then takes only the bytes that the kernel holds
  }
}

void UnixConnection::close() {
  if (state_ == State::kClosed) return;
  state_ = State::kClosed;
  release_held();
  boost::system::error_code ignored;
  socket_.close(ignored);
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
