// Limits of repeated log lines.
#include "loader/log_limit.h"

#include <gtest/gtest.h>

namespace latchkey {
namespace {

constexpr std::int64_t kSecond = 1'000'000'000;
constexpr std::int64_t kStart = 7'000 * kSecond;

TEST(LogLimit, TellsTheFirstAtOnceAndThenOneAMinuteWithTheNumberLeftOut) {
  LogLimit limit;
  EXPECT_EQ(limit.tell(kStart), "");
  for (std::int64_t i = 0; i < 83'000; ++i) {
    EXPECT_EQ(limit.tell(kStart + i * 700'000), std::nullopt);
  }
  EXPECT_EQ(limit.tell(kStart + 60 * kSecond - 1), std::nullopt);
  EXPECT_EQ(limit.tell(kStart + 60 * kSecond), " (and 83001 more in the last minute)");
  EXPECT_EQ(limit.tell(kStart + 61 * kSecond), std::nullopt);
  EXPECT_EQ(limit.tell(kStart + 500 * kSecond), " (and 1 more in the last 7 minutes)");
  EXPECT_EQ(limit.tell(kStart + 900 * kSecond), "") << "nothing was left out";
}

TEST(LogLimit, CountsEventsThatAreToldOfTogether) {
  LogLimit limit;
  EXPECT_EQ(limit.tell(kStart, 5), "");
  EXPECT_EQ(limit.tell(kStart + 1, 500), std::nullopt);
  EXPECT_EQ(limit.tell(kStart + 2, 7), std::nullopt);
  EXPECT_EQ(limit.tell(kStart + 60 * kSecond, 3), " (and 507 more in the last minute)");
}

TEST(LogLimit, WritesNoMoreThanALineAMinuteHoweverManyCome) {
  LogLimit limit;
  int lines = 0;
  for (std::int64_t now = 0; now < 600 * kSecond; now += kSecond / 100) {
    lines += limit.tell(kStart + now) ? 1 : 0;
  }
  EXPECT_EQ(lines, 10);
}

TEST(LogLimits, KeepsKindsApart) {
  LogLimits limits;
  EXPECT_EQ(limits.tell("a", kStart), "");
  EXPECT_EQ(limits.tell("b", kStart), "");
  EXPECT_EQ(limits.tell("a", kStart), std::nullopt);
  EXPECT_EQ(limits.tell("b", kStart + 60 * kSecond), "");
  EXPECT_EQ(limits.tell("a", kStart + 60 * kSecond), " (and 1 more in the last minute)");
}

}  // namespace
}  // namespace latchkey
