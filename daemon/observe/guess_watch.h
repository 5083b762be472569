// Who asks for keys that nobody knows, again and again: somebody guesses, or a client holds the
// keys of another installation. With random keys of 128 bits a guess is no danger; that somebody
// guesses is worth knowing. Pure.
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
    std::uint64_t keys = 0;  // unknown ones, within
    std::int64_t for_ns = 0;
  };

  static constexpr std::int64_t kWindowNs = 10'000'000'000;  // over which a rate is taken
  static constexpr std::int64_t kQuietNs = 60'000'000'000;   // between two words about one caller

  // Call every second or so. Those who are above `keys_per_second` (zero: nobody is) and were not
  // named in the last minute.
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
