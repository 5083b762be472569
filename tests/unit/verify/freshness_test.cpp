// The age of an answer, and the age from which it is unavailable.
#include "keymap/freshness.h"

#include <gtest/gtest.h>

#include <limits>

#include "tests/unit/support/helpers.h"
#include "tests/unit/support/verifier_fixture.h"

namespace latchkey {
namespace {

using test::kBootNs;
using test::kLimits;
using test::kMs;
using test::row;

TEST(FreshnessStamp, CountsFromTheLastProof) {
  FreshnessStamp stamp;
  EXPECT_FALSE(stamp.ever_proven());
  EXPECT_EQ(stamp.age_ns(kBootNs), std::numeric_limits<std::int64_t>::max());
  stamp.prove(kBootNs - 7);
  EXPECT_EQ(stamp.age_ns(kBootNs), 7);
  EXPECT_EQ(stamp.age_ns(kBootNs - 8), 0) << "proven after the request's clock was read";
  stamp.forget();
  EXPECT_FALSE(stamp.ever_proven());
}

class AnswerAge : public test::VerifierTest {};

TEST_F(AnswerAge, JudgesTheAgeOfAnAnswerToTheNanosecond) {
  constexpr std::uint32_t kAny = LATCHKEY_MAX_AGE_ANY;
  const struct {
    std::int64_t age_ns;
    std::uint32_t max_age_ms;
    latchkey_verdict verdict;
    bool fresh;
    std::uint32_t age_ms;
  } cases[] = {
      {0, kAny, LATCHKEY_VALID, true, 0},
      {-5 * kMs, 0, LATCHKEY_VALID, true, 0},
      {1, kAny, LATCHKEY_VALID, true, 0},
      {1, 0, LATCHKEY_UNAVAILABLE, false, 0},
      {5'000 * kMs, kAny, LATCHKEY_VALID, true, 5000},
      {5'000 * kMs + 1, kAny, LATCHKEY_VALID, false, 5000},
      {100 * kMs, 100, LATCHKEY_VALID, true, 100},
      {100 * kMs + 1, 100, LATCHKEY_UNAVAILABLE, false, 100},
      {60'000 * kMs, kAny, LATCHKEY_VALID, false, 60000},
      {60'000 * kMs + 1, kAny, LATCHKEY_UNAVAILABLE, false, 60000},
      {60'000 * kMs + 1, kAny - 1, LATCHKEY_UNAVAILABLE, false, 60000},
      {kBootNs, kAny, LATCHKEY_UNAVAILABLE, false, 1'000'000'000},
      {kBootNs + 5'000'000'000'000'000, kAny, LATCHKEY_UNAVAILABLE, false,
       LATCHKEY_AGE_UNKNOWN - 1},  // 70 days do not fit; this is not "never loaded"
  };
  in_a_.upsert(row("1", "k"));
  for (const auto& c : cases) {
    SCOPED_TRACE(testing::Message() << "age " << c.age_ns << ", max " << c.max_age_ms);
    prove(a_, c.age_ns);
    Terms terms;
    terms.max_age_ms = c.max_age_ms;
    const Outcome outcome = ask("k", terms);
    EXPECT_EQ(outcome.verdict, c.verdict);
    EXPECT_EQ(outcome.fresh, c.fresh);
    EXPECT_EQ(outcome.age_ms, c.age_ms);
    EXPECT_EQ(outcome.record == nullptr, c.verdict == LATCHKEY_UNAVAILABLE);
  }
}

TEST_F(AnswerAge, NeverAnswersFromASourceThatWasNotLoaded) {
  in_a_.upsert(row("1", "k"));
  a_.freshness.forget();
  const Outcome outcome = ask_sources("k", 0b001);
  EXPECT_EQ(outcome.verdict, LATCHKEY_UNAVAILABLE);
  EXPECT_EQ(outcome.age_ms, LATCHKEY_AGE_UNKNOWN);
  EXPECT_FALSE(outcome.fresh);
  EXPECT_EQ(outcome.record, nullptr);
}

TEST_F(AnswerAge, IsAsOldAsTheSourceThatSpokeOrElseAsTheOldestAsked) {
  in_b_.upsert(row("in b", "k"));
  prove(a_, 40'000 * kMs);
  prove(b_, 10 * kMs);
  prove(c_, 20 * kMs);
  EXPECT_EQ(ask("k").age_ms, 10U);
  EXPECT_TRUE(ask("k").fresh);
  EXPECT_EQ(ask("unknown").age_ms, 40'000U) << "any of them might know it by now";
  EXPECT_FALSE(ask("unknown").fresh);
  EXPECT_EQ(ask_sources("unknown", 0b110).age_ms, 20U);
  a_.freshness.forget();
  EXPECT_EQ(ask("unknown").verdict, LATCHKEY_UNAVAILABLE);
}

TEST_F(AnswerAge, IsUnavailableWhereARefusalIsTooOldToTell) {
  in_a_.upsert(row("in a", "k"));
  in_b_.upsert(row("in b", "k", RowState::kRevoked));
  prove(b_, kLimits.max_stale_ns + 1);
  EXPECT_EQ(ask("k").verdict, LATCHKEY_UNAVAILABLE) << "not the accepting row of the fresh source";
}

}  // namespace
}  // namespace latchkey
