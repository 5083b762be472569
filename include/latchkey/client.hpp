// liblatchkey for C++17 and later: wraps client.h with lifetimes, owned texts and exceptions.
// Requires only this header and liblatchkey. The laws of client.h apply.
//
//     latchkey::Client client;
//     const latchkey::Answer answer = client.verify(key);
//     if (answer) let_in(*answer.subject);
#ifndef LATCHKEY_CLIENT_HPP
#define LATCHKEY_CLIENT_HPP

#include <chrono>
#include <cstdint>
#include <memory>
#include <new>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "client.h"

// All names of the library for C++.
namespace latchkey {

// There is no answer: admit no one. what() is for a log and never contains a key.
class Error : public std::runtime_error {
 public:
  // The library constructs it; what() returns `text`.
  Error(latchkey_failure why, std::uint32_t daemons_refusal, const std::string& text)
      : std::runtime_error(text), failure(why), refusal(daemons_refusal) {}
  latchkey_failure failure;  // why there is no answer
  std::uint32_t refusal;     // if failure is LATCHKEY_FAILED_REFUSED: enum latchkey_error
};

// The question asked of each key. The default: all sources, any age, no scopes.
struct Question {
  std::string source;                   // empty: every source that this process may use
  std::vector<std::string> all_scopes;  // the key must hold all of these
  std::vector<std::string> any_scopes;  // if there are any: the key must hold at least one of these
  // Older data gives `unavailable`; nullopt: any age up to the daemon's own limit.
  std::optional<std::chrono::milliseconds> max_age;
  bool claims = true;     // return the key's claims except the metadata
  bool metadata = false;  // return the metadata, if this process may know them
};

// The answer to one key. It owns its texts.
struct Answer {
  latchkey_verdict verdict = LATCHKEY_UNAVAILABLE;  // only LATCHKEY_VALID is a yes
  bool fresh = false;  // no change that committed longer ago than the daemon's bound is missing
  std::optional<std::chrono::milliseconds> age;  // nullopt: never loaded, or no source asked
  // Absent if the key's row has no value or this process may not know it.
  std::optional<std::string> source;    // the configured source that answered
  std::optional<std::string> key_id;    // the id of the key's row
  std::optional<std::string> subject;   // the key's holder, from the mapped column
  std::optional<std::string> tenant;    // the holder's tenant, from the mapped column
  std::optional<std::string> scope;     // separated by spaces; empty: the key holds no scopes
  std::optional<std::string> metadata;  // the mapped column as it stands in the row
  // Rounded down to seconds, and limited to the clock's range; nullopt: the key does not expire.
  std::optional<std::chrono::system_clock::time_point> expires;

  // True if the holder is admitted: only the verdict `valid` is a yes.
  explicit operator bool() const { return verdict == LATCHKEY_VALID; }
};

namespace detail {

// A Question in the form of client.h: views of the Question, which must outlive this object.
class QuestionView {
 public:
  explicit QuestionView(const Question& from)
      : all_(pointers(from.all_scopes)), any_(pointers(from.any_scopes)) {
    c.flags = (from.claims ? std::uint32_t{LATCHKEY_WANT_CLAIMS} : 0U) |
              (from.metadata ? std::uint32_t{LATCHKEY_WANT_METADATA} : 0U);
    // A negative age becomes 0, which is equally unsatisfiable. A too large age must not become
    // "any age".
    if (from.max_age) {
      const auto ms = from.max_age->count();
      c.max_age_ms = ms < 0 ? 0U : ms >= 0xFFFFFFFF ? 0xFFFFFFFEU : static_cast<std::uint32_t>(ms);
    }
    if (!from.source.empty()) c.source = from.source.c_str();
    c.all_scopes = all_.data();
    c.all_scopes_count = all_.size();
    c.any_scopes = any_.data();
    c.any_scopes_count = any_.size();
  }
  QuestionView(const QuestionView&) = delete;
  QuestionView& operator=(const QuestionView&) = delete;

  latchkey_question c = LATCHKEY_QUESTION_INIT;

 private:
  static std::vector<const char*> pointers(const std::vector<std::string>& texts) {
    std::vector<const char*> list;
    for (const std::string& text : texts) list.push_back(text.c_str());
    return list;
  }
  std::vector<const char*> all_, any_;
};

}  // namespace detail

// Copies an answer of client.h; for callers of latchkey_take().
inline Answer owned(const latchkey_answer& from) {
  const auto text = [](const char* chars) {
    return chars == nullptr ? std::nullopt : std::optional<std::string>(chars);
  };
  Answer answer;
  answer.verdict = static_cast<latchkey_verdict>(from.verdict);
  answer.fresh = from.fresh != 0;
  if (from.age_ms != LATCHKEY_AGE_UNKNOWN) answer.age = std::chrono::milliseconds(from.age_ms);
  answer.source = text(from.source);
  answer.key_id = text(from.key_id);
  answer.subject = text(from.subject);
  answer.tenant = text(from.tenant);
  answer.scope = text(from.scope);
  answer.metadata = text(from.metadata);
  if (from.has_expires != 0) {
    // The clock counts nanoseconds and ends in 2262; a row's time may exceed its range.
    using Clock = std::chrono::system_clock;
    const std::int64_t limit =
        std::chrono::duration_cast<std::chrono::seconds>(Clock::duration::max()).count();
    answer.expires = from.expires >= limit ? Clock::time_point::max()
                     : from.expires <= -limit
                         ? Clock::time_point::min()
                         : Clock::time_point(std::chrono::seconds(from.expires));
  }
  return answer;
}

// One connection, made by the first request, for one thread at a time. Every call ends within its
// timeout and throws Error if there is no answer.
class Client {
 public:
  // An empty path selects $LATCHKEY_SOCKET, or else LATCHKEY_DEFAULT_SOCKET.
  explicit Client(
      const std::string& path = {},
      std::chrono::milliseconds timeout = std::chrono::milliseconds(LATCHKEY_DEFAULT_TIMEOUT_MS))
      : handle_(latchkey_open(path.empty() ? nullptr : path.c_str())) {
    if (!handle_) {
      throw Error(LATCHKEY_FAILED_ARGUMENT, 0,
                  "no memory, or a path of more than 107 bytes: " + path);
    }
    set_timeout(timeout);
  }

  // Sets the deadline of later calls, at least 1 ms. It covers connecting and all retries.
  void set_timeout(std::chrono::milliseconds timeout) {
    const auto ms = timeout.count();
    latchkey_set_timeout(get(), ms < 1            ? 1U
                                : ms > 0x7FFFFFFF ? 0x7FFFFFFFU
                                                  : static_cast<std::uint32_t>(ms));
  }

  // Returns the answer to one key, or throws.
  Answer verify(std::string_view key, const Question& question = {}) {
    const detail::QuestionView view(question);
    latchkey_answer answer;
    const int verdict = latchkey_verify(get(), key.data(), key.size(), &view.c, &answer);
    check(verdict < 0 ? verdict : 0);
    return owned(answer);
  }

  // Returns one answer per key, in the order of the keys, or throws.
  std::vector<Answer> verify(const std::vector<std::string_view>& keys,
                             const Question& question = {}) {
    const detail::QuestionView view(question);
    std::vector<latchkey_key> list;
    for (const std::string_view key : keys) list.push_back({key.data(), key.size()});
    std::vector<latchkey_answer> found(keys.size());
    check(latchkey_verify_many(get(), list.data(), list.size(), &view.c, found.data()));
    std::vector<Answer> answers;
    answers.reserve(found.size());
    for (const latchkey_answer& answer : found) answers.push_back(owned(answer));
    return answers;
  }

  // Returns once the daemon has answered.
  void ping() { check(latchkey_ping(get())); }

  // Returns once every change that committed before the call is in force; the result is the waiting
  // time. Throws Error with the refusal LATCHKEY_TIMED_OUT if this cannot be proven within
  // `timeout` (1 ms to 60 s).
  std::chrono::microseconds sync(std::chrono::milliseconds timeout) {
    const auto ms = timeout.count();
    std::uint64_t waited_us = 0;
    check(latchkey_sync(
        get(), ms < 0 || ms > LATCHKEY_SYNC_TIMEOUT_MS_MAX ? 0U : static_cast<std::uint32_t>(ms),
        &waited_us));
    return std::chrono::microseconds(waited_us);
  }

  // Both return JSON.
  std::string status() {
    const char* json = nullptr;
    check(latchkey_status(get(), &json));
    return json;
  }
  // Explains the verdict on one key.
  std::string why(std::string_view key, const Question& question = {}) {
    const detail::QuestionView view(question);
    const char* json = nullptr;
    check(latchkey_why(get(), key.data(), key.size(), &view.c, &json));
    return json;
  }

  // Access to the functions of client.h that this class lacks.
  [[nodiscard]] latchkey_client* get() { return handle_.get(); }

 private:
  void check(int failure) {
    if (failure == LATCHKEY_FAILED_MEMORY) throw std::bad_alloc();
    if (failure != 0) {
      throw Error(static_cast<latchkey_failure>(failure), latchkey_refusal(get()),
                  latchkey_error_text(get()));
    }
  }

  struct Close {
    void operator()(latchkey_client* handle) const { latchkey_close(handle); }
  };
  std::unique_ptr<latchkey_client, Close> handle_;
};

}  // namespace latchkey

#endif
