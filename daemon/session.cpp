#include "daemon/session.h"

#include <openssl/crypto.h>

#include <array>
#include <boost/asio/buffer.hpp>
#include <boost/asio/write.hpp>

#include "keymap/clock.h"

namespace latchkey {
namespace asio = boost::asio;
namespace {

constexpr std::int64_t kLingerNs = 1'000'000'000;

}  // namespace

Session::Session(Socket socket, SessionHost& host, const Peer& peer, const Rights& rights)
    : socket_(std::move(socket)), host_(host), peer_(peer), conversation_(rights) {}

void Session::apply(const CallerRules& rules) {
  const auto rights = rules.rights_of(peer_);
  if (!rights) return close();
  conversation_.set_rights(*rights);
}

void Session::start() {
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
          self->received(count);
        }
      });
}

void Session::received(std::size_t count) {
  in_.commit(count);
  answer();
}

void Session::answer() {
  const auto next = conversation_.answer(in_, out_, host_.context(), host_.scratch());
  if (out_.size() > 0) {
    write(next);
  } else {
    written(next);
  }
}

void Session::write(Conversation::Next then) {
  enter(State::kWriting);
  asio::async_write(
      socket_, asio::buffer(out_.data(), out_.size()),
      [self = shared_from_this(), then](const boost::system::error_code& error, std::size_t) {
        if (self->state_ == State::kClosed) return;
        if (error) return self->close();
        self->out_.clear();
        self->written(then);
      });
}

void Session::written(Conversation::Next then) {
  switch (then) {
    case Conversation::Next::kRead:
      if (draining_) return read_last();
      enter(State::kReading);
      return read();
    case Conversation::Next::kWrite: return answer();
    case Conversation::Next::kSync: return sync();
    case Conversation::Next::kClose: return linger();
  }
}

void Session::sync() {
  enter(State::kSyncing);
  const std::int64_t since_ns = boot_ns();
  host_.sync(conversation_.sync(), [self = shared_from_this(), since_ns](bool in_force) {
    if (self->state_ == State::kClosed) return;
    const std::uint64_t id = self->conversation_.sync().request_id;
    if (in_force) {
      encode_synced(self->out_, id, static_cast<std::uint64_t>((boot_ns() - since_ns) / 1000));
    } else {
      encode_error(self->out_, id, LATCHKEY_TIMED_OUT, error_sentence(LATCHKEY_TIMED_OUT));
    }
    self->answer();
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
  received(count);
}

void Session::close() {
  if (state_ == State::kClosed) return;
  state_ = State::kClosed;
  boost::system::error_code ignored;
  socket_.close(ignored);
  host_.closed(*this);
}

// ---- deadlines

void Session::enter(State state) {
  const LimitOptions& limits = host_.limits();
  const std::int64_t now_ns = boot_ns();
  const bool mid_frame = state == State::kReading && in_.mid_frame();
  switch (state) {
    case State::kReading:
      // A frame has its time from its first byte on: one byte a second does not buy more.
      if (mid_frame && mid_frame_ && state_ != State::kWriting) break;
      deadline_ns_ = now_ns + (mid_frame ? limits.stall_timeout : limits.idle_timeout).count();
      break;
    case State::kWriting: deadline_ns_ = now_ns + limits.stall_timeout.count(); break;
    case State::kLingering:
      if (state_ != State::kLingering) deadline_ns_ = now_ns + kLingerNs;
      break;
    case State::kSyncing:
      // Has its own: the request's timeout.
      deadline_ns_ = now_ns + std::int64_t{2} * LATCHKEY_SYNC_TIMEOUT_MS_MAX * 1'000'000;
      break;
    case State::kClosed: break;
  }
  mid_frame_ = mid_frame;
  state_ = state;
}

void Session::check_deadline(std::int64_t now_ns) {
  if (state_ == State::kClosed || now_ns < deadline_ns_) return;
  const bool idle = state_ == State::kReading && !mid_frame_;
  (idle ? host_.context().stats->closed_idle : host_.context().stats->closed_stalled).add();
  close();
}

}  // namespace latchkey
