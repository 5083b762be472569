// A blocking connection to latchkeyd with a deadline on everything.
#pragma once

#include <chrono>
#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <stdexcept>
#include <string>

#include "protocol/codec.h"
#include "protocol/frame_buffer.h"

namespace latchkey {

// No answer to be had: unreachable, too slow, or refused. what() is for people.
class NoAnswer : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// The daemon refused the request.
class Refused : public NoAnswer {
 public:
  Refused(latchkey_error error_code, const std::string& text) : NoAnswer(text), code(error_code) {}
  latchkey_error code;
};

class Connection {
 public:
  using Clock = std::chrono::steady_clock;

  // Connects within `timeout`; each later exchange has the same time. A full backlog is retried.
  Connection(const std::string& path, std::chrono::milliseconds timeout);
  ~Connection();
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  // Sends one encoded request and waits for its reply, whose body lives until the next exchange.
  // `extra` is added to the time allowed.
  Frame exchange(OutBuffer& request, std::uint64_t request_id, latchkey_type expected,
                 std::chrono::milliseconds extra = {});

 private:
  void wait(short events, Clock::time_point deadline) const;
  void send(Bytes bytes, Clock::time_point deadline);
  void receive(Clock::time_point deadline);

  std::string path_;
  std::chrono::milliseconds timeout_;
  int socket_;
  FrameBuffer in_{LATCHKEY_REPLY_BYTES_MAX};
};

// The reply to `status`, taken apart. Throws NoAnswer if it is no JSON object.
[[nodiscard]] nlohmann::ordered_json status_report(Connection& connection);

}  // namespace latchkey
