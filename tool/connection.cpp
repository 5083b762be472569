#include "tool/connection.h"

#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>
#include <system_error>

#include "tool/commands.h"

namespace latchkey {

Connection::Connection(const std::string& path, std::chrono::milliseconds timeout)
    : path_(path), client_(path.empty() ? nullptr : latchkey_open(path.c_str())) {
  if (client_ == nullptr) throw NoAnswer("the socket's path must have 1 to 107 bytes: " + path);
  latchkey_set_timeout(client_.get(), static_cast<std::uint32_t>(timeout.count()));
}

std::span<const latchkey_answer> Connection::verify(const VerifyQuestion& question,
                                                    std::span<const std::string_view> keys) {
  keys_.clear();
  for (const std::string_view key : keys) keys_.push_back({key.data(), key.size()});
  answers_.resize(keys.size());
  check(latchkey_verify_many(client_.get(), keys_.data(), keys_.size(), question.get(),
                             answers_.data()));
  return answers_;
}

nlohmann::ordered_json Connection::why(const VerifyQuestion& question, std::string_view key) {
  const char* text = nullptr;
  check(latchkey_why(client_.get(), key.data(), key.size(), question.get(), &text));
  return object(text);
}

nlohmann::ordered_json Connection::status() {
  check(latchkey_start_status(client_.get(), nullptr));
  return object(impatient_reply().text);
}

void Connection::ping() {
  check(latchkey_start_ping(client_.get(), nullptr));
  (void)impatient_reply();
}

void Connection::sync(std::chrono::milliseconds timeout) {
  check(latchkey_sync(client_.get(), static_cast<std::uint32_t>(timeout.count()), nullptr));
}

// The library alone would retry the connect until its deadline.
latchkey_reply Connection::impatient_reply() {
  latchkey_client* const client = client_.get();
  latchkey_reply reply;
  latchkey_step(client);
  if (latchkey_fd(client) < 0) throw_if_nobody_listens();
  while (latchkey_take(client, &reply) == 0) {
    pollfd fd{latchkey_fd(client), latchkey_events(client), 0};
    poll(&fd, 1, latchkey_due_ms(client));
    latchkey_step(client);
  }
  check(reply.failure, reply.refusal, reply.text);
  return reply;
}

void Connection::throw_if_nobody_listens() const {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path_.data(), path_.size());  // latchkey_open() checked the length
  const int made = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (made < 0) return;  // the library will report it
  const bool reached =
      ::connect(made, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0;
  const int error = errno;
  ::close(made);
  if (reached || (error != ENOENT && error != ECONNREFUSED)) return;
  throw NoAnswer("cannot connect to " + path_ + ": " + std::generic_category().message(error) +
                 (error == ENOENT ? ". Is latchkeyd running, and is this its socket?"
                                  : ". latchkeyd is not running."));
}

void Connection::check(int failure) const {
  if (failure < 0) {
    check(failure, latchkey_refusal(client_.get()), latchkey_error_text(client_.get()));
  }
}

void Connection::check(int failure, std::uint32_t refusal, const char* why) const {
  if (failure >= 0) return;
  const std::string text = why;
  switch (failure) {
    case LATCHKEY_FAILED_ARGUMENT: throw UsageError{text};
    case LATCHKEY_FAILED_REFUSED: throw Refused(refusal, text);
    default:
      throw NoAnswer(text.find(path_) == text.npos ? text + ". (The socket is " + path_ + ")"
                                                   : text);
  }
}

nlohmann::ordered_json Connection::object(const char* text) const {
  auto told = nlohmann::ordered_json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!told.is_object()) {
    throw NoAnswer("what answers on " + path_ + " does not speak latchkeyd's protocol");
  }
  return told;
}

}  // namespace latchkey
