#include "daemon/session.h"

#include <openssl/crypto.h>

#include <array>
#include <boost/asio/buffer.hpp>
#include <boost/asio/write.hpp>
#include <limits>
#include <utility>

#include "keymap/clock.h"

namespace latchkey {
namespace asio = boost::asio;
namespace {

constexpr std::int64_t kLingerNs = 1'000'000'000;
constexpr std::int64_t kNoDeadline = std::numeric_limits<std::int64_t>::max();

}  // namespace

Session::Session(Socket socket, SessionHost& host, const Peer& peer, const Rights& rights)
    : socket_(std::move(socket)), host_(host), peer_(peer), conversation_(rights) {}

void Session::apply(const CallerRules& rules) {
  const auto rights = rules.rights_of(peer_);
  if (!rights) return close();
  conversation_.set_rights(*rights);
}

void Session::start() {
  boost::system::error_code ignored;
  socket_.non_blocking(true, ignored);  // for the writes that are tried at once
  enter(State::kReading);
  read();
}

void Session::refuse(latchkey_error code) {
  encode_error(out_, 0, code, error_sentence(code));
  write(Conversation::Next::kClose);
}

void Session::read() {
  const auto room = in_.writable();
  socket_.async_read_some(
      asio::buffer(room.data(), room.size()),
      [self = shared_from_this()](const boost::system::error_code& error, std::size_t count) {
        if (self->state_ == State::kClosed) return;
        if (error == asio::error::operation_aborted && self->draining_) {
          self->read_last();
        } else if (error) {
          self->close();  // gone, or half-closed: everything it asked for has been answered
        } else {
          self->in_.commit(count);
          self->received_ns_ = boot_ns();
          self->wait_turn(false);
        }
      });
}

void Session::wait_turn(bool again) {
  enter(State::kReady);
  host_.ready(*this, again);
}

std::size_t Session::turn() {
  if (state_ == State::kClosed) return 0;
  const auto next = conversation_.answer(in_, out_, host_.context(), host_.scratch());
  if (const std::uint64_t keys = conversation_.take_unknown()) host_.asked_in_vain(peer_.uid, keys);
  const std::size_t said = out_.size();
  if (said > 0) {
    frame_deadline_ns_ = 0;  // what has begun now is another frame
    write(next);
  } else {
    written(next);
  }
  return said;
}

// Most replies fit the socket's buffer at once.
void Session::write(Conversation::Next then) {
  boost::system::error_code error;
  const std::size_t sent = socket_.write_some(asio::buffer(out_.data(), out_.size()), error);
  if (!error && sent == out_.size()) {
    out_.clear();
    return written(then);
  }
  if (error && error != asio::error::would_block) return close();
  held_bytes_ = out_.capacity();
  if (!host_.admission().hold(peer_.uid, held_bytes_)) {
    held_bytes_ = 0;
    host_.context().stats->closed_hoarding.add();
    return close();
  }
  enter(State::kWriting);
  asio::async_write(
      socket_, asio::buffer(out_.data() + sent, out_.size() - sent),
      [self = shared_from_this(), then](const boost::system::error_code& failed, std::size_t) {
        if (self->state_ == State::kClosed) return;
        if (failed) return self->close();
        self->release_held();
        self->out_.clear();
        self->written(then);
      });
}

void Session::release_held() {
  if (held_bytes_ > 0) host_.admission().free(peer_.uid, std::exchange(held_bytes_, 0));
}

void Session::written(Conversation::Next then) {
  switch (then) {
    case Conversation::Next::kRead:
      if (draining_) return read_last();
      enter(State::kReading);
      return read();
    case Conversation::Next::kWrite: return wait_turn(true);
    case Conversation::Next::kSync: return sync();
    case Conversation::Next::kClose: return linger();
  }
}

void Session::sync() {
  enter(State::kSyncing);
  received_ns_ = 0;  // how long that takes says nothing of us
  const std::int64_t since_ns = boot_ns();
  host_.sync(conversation_.sync(), [self = shared_from_this(), since_ns](bool in_force) {
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

// Closing with unread bytes would make the kernel throw away what the caller has not read yet: the
// very message that says why. So: end our half, let it talk into the void for a moment, then close.
void Session::linger() {
  enter(State::kLingering);
  boost::system::error_code ignored;
  socket_.shutdown(Socket::shutdown_send, ignored);
  const auto trash = std::make_shared<std::array<char, 4096>>();
  socket_.async_read_some(
      asio::buffer(*trash),
      [self = shared_from_this(), trash](const boost::system::error_code& error, std::size_t) {
        OPENSSL_cleanse(trash->data(), trash->size());
        if (self->state_ == State::kClosed) return;
        if (error) return self->close();
        self->linger();
      });
}

void Session::drain() {
  draining_ = true;
  if (state_ == State::kReading) {
    boost::system::error_code ignored;
    socket_.cancel(ignored);  // read() goes on to read_last()
  }
}

// Takes what the kernel holds for us, without waiting for more.
void Session::read_last() {
  boost::system::error_code error;
  socket_.non_blocking(true, error);
  const auto room = in_.writable();
  const std::size_t count = socket_.read_some(asio::buffer(room.data(), room.size()), error);
  if (error || count == 0) return close();
  in_.commit(count);
  wait_turn(true);  // a caller who goes on asking must not keep us here
}

void Session::close() {
  if (state_ == State::kClosed) return;
  state_ = State::kClosed;
  release_held();
  boost::system::error_code ignored;
  socket_.close(ignored);
  host_.closed(*this);
}

// ---- deadlines

void Session::enter(State state) {
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
        // A frame has its time from its first byte on: one byte a second does not buy more.
        frame_deadline_ns_ = boot_ns() + stall_ns;
      }
      deadline_ns_ = frame_deadline_ns_;
      break;
    case State::kReady: deadline_ns_ = kNoDeadline; break;  // it is we who make it wait
    case State::kWriting: deadline_ns_ = boot_ns() + stall_ns; break;
    case State::kLingering:
      if (state_ != State::kLingering) deadline_ns_ = boot_ns() + kLingerNs;
      break;
    case State::kSyncing:
      // Has its own: the request's timeout.
      deadline_ns_ = boot_ns() + std::int64_t{2} * LATCHKEY_SYNC_TIMEOUT_MS_MAX * 1'000'000;
      break;
    case State::kClosed: break;
  }
  state_ = state;
}

void Session::check_deadline(std::int64_t now_ns, std::int64_t idle_ns) {
  if (state_ == State::kClosed) return;
  const bool idle = state_ == State::kReading && frame_deadline_ns_ == 0;
  if (now_ns < (idle ? idle_since_ns_ + idle_ns : deadline_ns_)) return;
  (idle ? host_.context().stats->closed_idle : host_.context().stats->closed_stalled).add();
  close();
}

}  // namespace latchkey
