// The connection of `latchkey` to the daemon. It uses liblatchkey with its deadlines, limits and
// retries (PROTOCOL.md), as any other program does, and turns failures into exceptions.
#pragma once

#include <latchkey/client.h>

#include <chrono>
#include <cstdint>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "tool/question.h"

namespace latchkey {

// There is no answer: the daemon is unreachable, too slow, or refused. what() is for people.
class NoAnswer : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// The daemon refused the request.
class Refused : public NoAnswer {
 public:
  Refused(std::uint32_t error_code, const std::string& text) : NoAnswer(text), code(error_code) {}
  std::uint32_t code;  // enum latchkey_error
};

// Every method throws NoAnswer, or UsageError for an invalid question.
class Connection {
 public:
  // `timeout` limits each call, including all attempts to connect.
  Connection(const std::string& path, std::chrono::milliseconds timeout);

  // Returns one answer for each key. The answers' texts live until the next call.
  std::span<const latchkey_answer> verify(const VerifyQuestion& question,
                                          std::span<const std::string_view> keys);
  nlohmann::ordered_json why(const VerifyQuestion& question, std::string_view key);
  // These check the daemon's state, so they fail at once if it cannot be reached.
  nlohmann::ordered_json status();
  void ping();
  // `timeout` is added to the connection's own.
  void sync(std::chrono::milliseconds timeout);

 private:
  struct Close {
    void operator()(latchkey_client* client) const { latchkey_close(client); }
  };
  latchkey_reply impatient_reply();
  void throw_if_nobody_listens() const;
  void check(int failure) const;
  void check(int failure, std::uint32_t refusal, const char* why) const;
  [[nodiscard]] nlohmann::ordered_json object(const char* text) const;

  std::string path_;
  std::unique_ptr<latchkey_client, Close> client_;
  std::vector<latchkey_key> keys_;
  std::vector<latchkey_answer> answers_;
};

}  // namespace latchkey
