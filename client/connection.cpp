#include "client/connection.h"

#include <openssl/crypto.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>
#include <system_error>

namespace latchkey {
namespace {

std::string words(int error) { return std::generic_category().message(error); }

}  // namespace

Connection::Connection(const std::string& path, std::chrono::milliseconds timeout)
    : path_(path), timeout_(timeout), socket_(-1) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof address.sun_path) {
    throw NoAnswer("the socket's path must have 1 to 107 bytes: " + path);
  }
  std::memcpy(address.sun_path, path.data(), path.size());
  socket_ = ::socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (socket_ < 0) throw NoAnswer("cannot make a socket: " + words(errno));
  const auto deadline = Clock::now() + timeout_;
  // A full backlog answers EAGAIN at once, and poll() cannot wait for room in it.
  while (connect(socket_, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    const int error = errno;
    if ((error != EAGAIN && error != EINTR) || Clock::now() >= deadline) {
      ::close(socket_);
      socket_ = -1;
      const char* hint = error == ENOENT         ? " Is latchkeyd running, and is this its socket?"
                         : error == ECONNREFUSED ? " latchkeyd is not running."
                         : error == EACCES ? " This user may not open it: see `mode` and `group`."
                                           : "";
      throw NoAnswer("cannot connect to " + path + ": " + words(error) + "." + hint);
    }
    poll(nullptr, 0, 2);
  }
}

Connection::~Connection() {
  if (socket_ >= 0) ::close(socket_);
}

void Connection::wait(short events, Clock::time_point deadline) const {
  for (;;) {
    const auto left =
        std::chrono::duration_cast<std::chrono::milliseconds>(deadline - Clock::now()).count();
    if (left <= 0) throw NoAnswer("latchkeyd on " + path_ + " did not answer in time");
    pollfd fd{socket_, events, 0};
    const int ready = poll(&fd, 1, static_cast<int>(left) + 1);
    if (ready > 0) return;
    if (ready < 0 && errno != EINTR) throw NoAnswer("poll: " + words(errno));
  }
}

void Connection::send(Bytes bytes, Clock::time_point deadline) {
  while (!bytes.empty()) {
    const ssize_t sent = ::send(socket_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (sent > 0) {
      bytes = bytes.subspan(static_cast<std::size_t>(sent));
    } else if (errno == EAGAIN || errno == EINTR) {
      wait(POLLOUT, deadline);
    } else {
      return;  // whoever closed has perhaps said why: receive() will find it
    }
  }
}

void Connection::receive(Clock::time_point deadline) {
  for (;;) {
    const auto room = in_.writable();
    const ssize_t got = recv(socket_, room.data(), room.size(), 0);
    if (got > 0) return in_.commit(static_cast<std::size_t>(got));
    if (got == 0 || (errno != EAGAIN && errno != EINTR)) {
      throw NoAnswer("latchkeyd on " + path_ + " closed the connection");
    }
    wait(POLLIN, deadline);
  }
}

Frame Connection::exchange(OutBuffer& request, std::uint64_t request_id, latchkey_type expected,
                           std::chrono::milliseconds extra) {
  const auto deadline = Clock::now() + timeout_ + extra;
  send(request.bytes(), deadline);
  OPENSSL_cleanse(request.data(), request.size());
  request.clear();
  in_.release();
  for (;;) {
    const auto frame = in_.next_frame();
    if (frame && frame->header.type == LATCHKEY_ERROR) {
      latchkey_error code{};
      std::string_view text;
      if (decode_error(frame->body, code, text)) break;
      throw Refused(code,
                    "latchkeyd refused: " + std::string(text) + " (" + error_name(code) + ")");
    }
    if (frame) {
      if (frame->header.type != expected || frame->header.request_id != request_id) break;
      return *frame;
    }
    if (in_.error()) break;
    receive(deadline);
  }
  throw NoAnswer("what answers on " + path_ + " does not speak latchkeyd's protocol");
}

nlohmann::ordered_json status_report(Connection& connection) {
  OutBuffer request;
  encode_status(request, 1);
  const Frame reply = connection.exchange(request, 1, LATCHKEY_STATUS_REPLY);
  auto report =
      nlohmann::ordered_json::parse(as_text(reply.body), nullptr, /*allow_exceptions=*/false);
  if (!report.is_object()) throw NoAnswer("the daemon's reply cannot be understood");
  return report;
}

}  // namespace latchkey
