// The clocks. Only shells read them; everything else takes the time as an argument.
#pragma once

#include <time.h>

#include <cstdint>
#include <limits>

namespace latchkey {

// One reading of both clocks serves a whole batch.
struct Now {
  std::int64_t real_us = 0;  // CLOCK_REALTIME: expiry and not-before
  std::int64_t boot_ns = 0;  // CLOCK_BOOTTIME: freshness and deadlines
};

// Microseconds since 1970, UTC: the ends of a key's life that it does not have.
constexpr std::int64_t kNeverExpires = std::numeric_limits<std::int64_t>::max();
constexpr std::int64_t kAlwaysValid = std::numeric_limits<std::int64_t>::min();

// Whole seconds, towards the past: what was in the middle of a second is told as its beginning.
[[nodiscard]] constexpr std::int64_t floor_seconds(std::int64_t us) {
  const std::int64_t seconds = us / 1'000'000;
  return us % 1'000'000 < 0 ? seconds - 1 : seconds;
}

[[nodiscard]] inline std::int64_t boot_ns() {
  timespec time{};
  clock_gettime(CLOCK_BOOTTIME, &time);
  return std::int64_t{time.tv_sec} * 1'000'000'000 + time.tv_nsec;
}

// CLOCK_MONOTONIC stands still while the machine sleeps: for how long a thread has been busy.
[[nodiscard]] inline std::int64_t awake_ns() {
  timespec time{};
  clock_gettime(CLOCK_MONOTONIC, &time);
  return std::int64_t{time.tv_sec} * 1'000'000'000 + time.tv_nsec;
}

[[nodiscard]] inline Now read_clocks() {
  timespec time{};
  clock_gettime(CLOCK_REALTIME, &time);
  return {std::int64_t{time.tv_sec} * 1'000'000 + time.tv_nsec / 1000, boot_ns()};
}

}  // namespace latchkey
