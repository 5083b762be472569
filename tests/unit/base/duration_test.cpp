// Durations in a configuration: a number and a unit.
#include "base/duration.h"

#include <gtest/gtest.h>

#include <chrono>

namespace latchkey {
namespace {

using namespace std::chrono_literals;

TEST(Duration, IsANumberAndAUnit) {
  const std::pair<const char*, std::chrono::nanoseconds> good[] = {
      {"0s", 0ns},      {"1us", 1us},      {"250ms", 250ms}, {"5s", 5s},
      {"10m", 10min},   {"2min", 2min},    {"1h", 1h},       {"2d", 48h},
      {"1.5s", 1500ms}, {"0.25ms", 250us}, {"366d", 8784h},  {"007s", 7s},
  };
  for (const auto& [text, value] : good) EXPECT_EQ(parse_duration(text), value) << text;
  for (const char* bad : {"",     "5",    "s",    "0",     "-1s",
                          "+1s",  " 5s",  "5 s",  "5s ",   "5S",
                          "5sec", "5x",   "1e3s", "1h30m", "infs",
                          "inf",  "nans", "nan",  "367d",  "99999999999999999999d",
                          "0x5s", "5,5s", "--1s", "1s1",   "1.2.3s"}) {
    EXPECT_FALSE(parse_duration(bad).has_value()) << bad;
  }
}

}  // namespace
}  // namespace latchkey
