// Detects callers that repeatedly ask for unknown keys: the caller guesses, or a client holds keys
// of another installation. Guessing random keys of 128 bits is no danger, but operators should know
// of it. Does no I/O; time is an argument.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <span>
#include <unordered_map>
#include <utility>
#include <vector>

#include "daemon/server/admission.h"

namespace latchkey {

class GuessWatch {
 public:
  struct Suspect {
    uid_t uid = 0;
    std::uint64_t keys = 0;  // unknown keys, within `for_ns`
    std::int64_t for_ns = 0;
  };

  static constexpr std::int64_t kWindowNs = 10'000'000'000;  // minimum time to measure a rate
  static constexpr std::int64_t kQuietNs = 60'000'000'000;   // between two reports of one uid

  // Call about once a second. Returns the uids above `keys_per_second` (zero: none) that were not
  // reported in the last minute.
  [[nodiscard]] std::vector<Suspect> look(
      std::span<const std::pair<uid_t, Admission::Caller>> callers, std::uint64_t keys_per_second,
      std::int64_t now_ns);

 private:
  struct Known {
    std::uint64_t keys = 0;
    std::int64_t since_ns = 0;
    std::int64_t quiet_until_ns = 0;
  };
  std::unordered_map<uid_t, Known> known_;
};

}  // namespace latchkey
