// At most one line a minute for each kind of event that others can cause at will: by a
// notification, by a row, by a change of a table. Otherwise they could make the journal drop
// important lines (journald.conf(5), RateLimitBurst=).
//
// Pure.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>

namespace latchkey {

class LogLimit {
 public:
  static constexpr std::int64_t kEvery = 60'000'000'000;  // ns

  // `events` have happened. Returns nullopt if they must not be logged now; otherwise a suffix for
  // their log line: how many earlier events were left out.
  [[nodiscard]] std::optional<std::string> tell(std::int64_t now_ns, std::uint64_t events = 1) {
    if (told_ns_ && now_ns - *told_ns_ < kEvery) {
      left_out_ += events;
      return std::nullopt;
    }
    std::string more;
    if (left_out_ > 0) {
      const std::int64_t minutes = (now_ns - *told_ns_) / kEvery;
      more = " (and " + std::to_string(left_out_) + " more in the last " +
             (minutes == 1 ? "minute)" : std::to_string(minutes) + " minutes)");
    }
    told_ns_ = now_ns;
    left_out_ = 0;
    return more;
  }

 private:
  std::optional<std::int64_t> told_ns_;
  std::uint64_t left_out_ = 0;
};

// One limit for each kind. Kinds are few, and constant in the code.
class LogLimits {
 public:
  [[nodiscard]] std::optional<std::string> tell(const std::string& kind, std::int64_t now_ns,
                                                std::uint64_t events = 1) {
    return limits_[kind].tell(now_ns, events);
  }

 private:
  std::map<std::string, LogLimit> limits_;
};

}  // namespace latchkey
