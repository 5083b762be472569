// Clock access. Only I/O code reads clocks; all other code takes the time as an argument.
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

// Microseconds since 1970, UTC: the bounds of a key without expiry or not-before time.
constexpr std::int64_t kNeverExpires = std::numeric_limits<std::int64_t>::max();
constexpr std::int64_t kAlwaysValid = std::numeric_limits<std::int64_t>::min();

// Rounds down, also for times before 1970.
[[nodiscard]] constexpr std::int64_t floor_seconds(std::int64_t us) {
  const std::int64_t seconds = us / 1'000'000;
  return us % 1'000'000 < 0 ? seconds - 1 : seconds;
}

// Nanoseconds as seconds, for figures that people read.
[[nodiscard]] constexpr double to_seconds(std::int64_t ns) { return static_cast<double>(ns) / 1e9; }

[[nodiscard]] inline std::int64_t boot_ns() {
  timespec time{};
  clock_gettime(CLOCK_BOOTTIME, &time);
  return std::int64_t{time.tv_sec} * 1'000'000'000 + time.tv_nsec;
}

// CLOCK_MONOTONIC stops during suspend. Measures how long a thread has been busy.
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
