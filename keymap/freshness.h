// The age of a source's map.
//
// The loader stamps a source with the instant up to which the map is proven complete: every change
// committed by then is in the map. Each reader compares the stamp with the time of its request. No
// timer sets a flag: after a process was stopped for a minute, its first request finds a stamp that
// is a minute old.
//
// Times are nanoseconds of CLOCK_BOOTTIME, which advances during suspend and cannot be set by an
// administrator.
// administrator can set.
#pragma once

#include <atomic>
#include <cstdint>
#include <limits>

namespace latchkey {

struct FreshnessLimits {
  std::int64_t bound_ns = 5'000'000'000;          // older answers are not fresh
  std::int64_t max_stale_ns = 3'600'000'000'000;  // older data gives no answer
};

class FreshnessStamp {
 public:
  static constexpr std::int64_t kNever = std::numeric_limits<std::int64_t>::min();

  // The loader calls this after publishing every change that committed before `boot_ns`. The
  // release pairs with the acquire in age_ns(): a reader that sees the stamp sees those changes.
  void prove(std::int64_t boot_ns) { proven_ns_.store(boot_ns, std::memory_order_release); }
  // Discards the stamp; until the next prove() there is no answer.
  void forget() { proven_ns_.store(kNever, std::memory_order_release); }

  [[nodiscard]] bool ever_proven() const {
    return proven_ns_.load(std::memory_order_acquire) != kNever;
  }
  // Read this before looking up keys, never after: an age read later could vouch for a change that
  // the look-up was too early to see. Returns zero if the stamp is newer than `now_ns`, and the
  // largest value if nothing was ever proven.
  [[nodiscard]] std::int64_t age_ns(std::int64_t now_ns) const {
    const std::int64_t proven = proven_ns_.load(std::memory_order_acquire);
    if (proven == kNever) return std::numeric_limits<std::int64_t>::max();
    return proven < now_ns ? now_ns - proven : 0;
  }

 private:
  std::atomic<std::int64_t> proven_ns_{kNever};
};

}  // namespace latchkey
