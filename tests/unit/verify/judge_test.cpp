// The verdict of one row at one instant.
#include <gtest/gtest.h>

#include <limits>

#include "tests/unit/support/helpers.h"
#include "verify/verifier.h"

namespace latchkey {
namespace {

using test::row;

constexpr std::int64_t kRealUs = 1'700'000'000'000'000;

TEST(Judge, PutsStateBeforeTimeAndDrawsTimeToTheMicrosecond) {
  constexpr auto kActive = RowState::kActive;
  constexpr std::int64_t kLast = std::numeric_limits<std::int64_t>::max();
  const struct {
    RowState state;
    std::int64_t not_before_us, expires_us, now_us;
    latchkey_verdict verdict;
  } cases[] = {
      {kActive, kAlwaysValid, kNeverExpires, kRealUs, LATCHKEY_VALID},
      {kActive, kAlwaysValid, kNeverExpires, kLast, LATCHKEY_VALID},
      {kActive, kAlwaysValid, kRealUs + 1, kRealUs, LATCHKEY_VALID},
      {kActive, kAlwaysValid, kRealUs, kRealUs, LATCHKEY_EXPIRED},
      {kActive, kAlwaysValid, kRealUs - 1, kRealUs, LATCHKEY_EXPIRED},
      {kActive, kAlwaysValid, 0, kRealUs, LATCHKEY_EXPIRED},
      {kActive, kAlwaysValid, -1, -2, LATCHKEY_VALID},  // before 1970
      {kActive, kRealUs, kNeverExpires, kRealUs, LATCHKEY_VALID},
      {kActive, kRealUs + 1, kNeverExpires, kRealUs, LATCHKEY_NOT_YET_VALID},
      {kActive, kRealUs - 1, kRealUs + 1, kRealUs, LATCHKEY_VALID},
      {kActive, kRealUs + 1, kRealUs, kRealUs, LATCHKEY_EXPIRED},  // never valid
      {RowState::kRevoked, kAlwaysValid, kNeverExpires, kRealUs, LATCHKEY_REVOKED},
      {RowState::kRevoked, kAlwaysValid, 0, kRealUs, LATCHKEY_REVOKED},
      {RowState::kDisabled, kRealUs + 1, kNeverExpires, kRealUs, LATCHKEY_DISABLED},
      {RowState::kDeleted, kAlwaysValid, 0, kRealUs, LATCHKEY_DELETED},
  };
  test::Records records;
  for (const auto& c : cases) {
    RecordFacts f = row("1", "k", c.state);
    f.not_before_us = c.not_before_us;
    f.expires_us = c.expires_us;
    EXPECT_EQ(judge(*records.make(f), c.now_us), c.verdict)
        << "line with now " << c.now_us << ", expiry " << c.expires_us;
  }
}

// A token's own times can only restrict the row's.
TEST(Judge, TakesTheStricterOfRowAndToken) {
  constexpr auto kActive = RowState::kActive;
  constexpr std::int64_t kNow = kRealUs, kLater = kRealUs + 1;
  const struct {
    RowState state;
    std::int64_t row_begins, row_ends, token_begins, token_ends;
    latchkey_verdict verdict;
  } cases[] = {
      {kActive, kAlwaysValid, kNeverExpires, kAlwaysValid, kNeverExpires, LATCHKEY_VALID},
      {kActive, kNow, kLater, kNow, kLater, LATCHKEY_VALID},
      {kActive, kAlwaysValid, kNeverExpires, kAlwaysValid, kNow, LATCHKEY_EXPIRED},
      {kActive, kAlwaysValid, kNeverExpires, kAlwaysValid, kAlwaysValid, LATCHKEY_EXPIRED},
      {kActive, kAlwaysValid, kNow, kAlwaysValid, kNeverExpires, LATCHKEY_EXPIRED},
      {kActive, kAlwaysValid, kNeverExpires, kLater, kNeverExpires, LATCHKEY_NOT_YET_VALID},
      {kActive, kAlwaysValid, kNeverExpires, kNeverExpires, kNeverExpires, LATCHKEY_NOT_YET_VALID},
      {kActive, kLater, kNeverExpires, kAlwaysValid, kNeverExpires, LATCHKEY_NOT_YET_VALID},
      // expired takes precedence, from either
      {kActive, kLater, kNeverExpires, kAlwaysValid, kNow, LATCHKEY_EXPIRED},
      {kActive, kAlwaysValid, kNow, kLater, kNeverExpires, LATCHKEY_EXPIRED},
      {kActive, kAlwaysValid, kNeverExpires, kLater, kNow, LATCHKEY_EXPIRED},
      {RowState::kRevoked, kAlwaysValid, kNeverExpires, kAlwaysValid, kNow, LATCHKEY_REVOKED},
      {RowState::kDisabled, kAlwaysValid, kNow, kLater, kNeverExpires, LATCHKEY_DISABLED},
      {RowState::kDeleted, kLater, kNeverExpires, kLater, kNow, LATCHKEY_DELETED},
  };
  test::Records records;
  for (std::size_t i = 0; i < std::size(cases); ++i) {
    const auto& c = cases[i];
    RecordFacts f = row("1", "k", c.state);
    f.not_before_us = c.row_begins;
    f.expires_us = c.row_ends;
    EXPECT_EQ(judge(*records.make(f), JwtTimes{c.token_ends, c.token_begins}, kNow), c.verdict)
        << "case " << i;
  }
}

}  // namespace
}  // namespace latchkey
