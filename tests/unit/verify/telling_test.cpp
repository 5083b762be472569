// An outcome as its caller is told: counters, reduction to the caller's rights, claims, the log of
// uses, names of sources. (verifier_test.cpp: the outcomes; hidden_reasons_test.cpp: whole
// replies.)
#include "verify/telling.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/wire_names.h"
#include "tests/unit/support/helpers.h"
#include "tests/unit/support/verifier_fixture.h"

namespace latchkey {
namespace {

using test::kLimits;
using test::kRealUs;
using test::row;
using testing::ElementsAre;
using testing::IsEmpty;
using testing::Pair;

constexpr std::int64_t kSecond = 1'000'000;  // us

// Verdicts that depend on no row: a caller without the right to reasons is told them as found.
constexpr latchkey_verdict kOpen[] = {LATCHKEY_VALID, LATCHKEY_INSUFFICIENT_SCOPE,
                                      LATCHKEY_MALFORMED, LATCHKEY_FORBIDDEN};
bool is_open(latchkey_verdict verdict) {
  return std::ranges::find(kOpen, verdict) != std::end(kOpen);
}

std::vector<latchkey_verdict> all_verdicts() {
  std::vector<latchkey_verdict> verdicts;
  for (int i = 0; i < LATCHKEY_VERDICTS; ++i) verdicts.push_back(static_cast<latchkey_verdict>(i));
  return verdicts;
}

using Claims = std::vector<std::pair<int, std::string>>;

// Tags and values, in order. A claim may be cut off; then the rest is one claim of tag -1.
Claims claims_in(Bytes bytes) {
  Claims claims;
  while (!bytes.empty()) {
    const std::size_t length =
        bytes.size() < LATCHKEY_CLAIM_BYTES ? bytes.size() : load_le<std::uint16_t>(&bytes[1]);
    if (LATCHKEY_CLAIM_BYTES + length > bytes.size()) {
      claims.emplace_back(-1, std::string(as_text(bytes)));
      break;
    }
    claims.emplace_back(bytes[0],
                        std::string(as_text(bytes.subspan(LATCHKEY_CLAIM_BYTES, length))));
    bytes = bytes.subspan(LATCHKEY_CLAIM_BYTES + length);
  }
  return claims;
}

std::string eight_bytes(std::int64_t value) {
  std::array<std::uint8_t, 8> bytes;
  store_le(bytes.data(), value);
  return std::string(as_text(bytes));
}

// All that a caller can see of an answer.
struct Told {
  latchkey_verdict verdict;
  bool fresh;
  std::uint32_t age_ms;
  Claims claims;

  friend bool operator==(const Told&, const Told&) = default;
  friend std::ostream& operator<<(std::ostream& out, const Told& told) {
    return out << verdict_name(told.verdict) << (told.fresh ? ", fresh, " : ", not fresh, ")
               << told.age_ms << " ms, " << testing::PrintToString(told.claims);
  }
};

constexpr Wanted kAll{.claims = true, .metadata = true};

class TellingTest : public test::VerifierTest {
 protected:
  TellingTest() {
    RecordFacts facts = row("7", "k");
    facts.subject = "the subject";
    facts.tenant = "the tenant";
    facts.metadata = R"({"a":1})";
    facts.scopes = in_a_.scopes().intern({"write", "read"});
    facts.expires_us = kRealUs + 90 * kSecond + 1;
    in_a_.upsert(facts);
  }

  // An outcome about a row of source a, fresh and young where the answer to an unknown key is not.
  Outcome found(latchkey_verdict verdict) {
    Outcome outcome = VerifierTest::ask("k");
    EXPECT_NE(outcome.record, nullptr);
    outcome.verdict = verdict;
    outcome.fresh = true;
    outcome.age_ms = 11;
    outcome.verdict_if_unknown = LATCHKEY_UNKNOWN;
    outcome.fresh_if_unknown = false;
    outcome.age_if_unknown_ms = 222;
    return outcome;
  }

  Told tell(const Outcome& outcome, Wanted wanted = kAll, const Rights& rights = all_rights()) {
    Telling telling(verifier_, rights, stats_, 1, moment_);
    Answer answer;
    return tell(telling, outcome, wanted, answer);
  }
  static Told tell(Telling& telling, const Outcome& outcome, Wanted wanted, Answer& answer) {
    telling.tell(outcome, wanted, answer);
    Told told{answer.verdict, answer.fresh, answer.age_ms, {}};
    for (const Bytes part : answer.claims()) {
      for (auto& claim : claims_in(part)) told.claims.push_back(std::move(claim));
    }
    return told;
  }

  static Rights all_rights() {
    return {.sources = 0b111, .all_sources = true, .reasons = true, .metadata = true};
  }
  static Rights without_reasons() {
    return {.sources = 0b111, .all_sources = true, .reasons = false, .metadata = true};
  }

  // The verdicts that were counted, with their counts.
  using Counts = std::vector<std::pair<latchkey_verdict, std::uint64_t>>;
  static Counts counts(const std::array<Counter, LATCHKEY_VERDICTS>& counters) {
    Counts list;
    for (const latchkey_verdict verdict : all_verdicts()) {
      if (const auto count = counters[verdict].get(); count != 0) list.emplace_back(verdict, count);
    }
    return list;
  }
  // The times of noted uses.
  std::vector<std::int64_t> uses() {
    std::vector<std::int64_t> times;
    uses_.take([&](const Use& use) { times.push_back(use.real_us); });
    return times;
  }

  UseLog uses_{2};
  Verifier verifier_{{Digester(), Digester("v1", test::as_bytes(test::kOldPepper), 4),
                      Digester("v2", test::as_bytes(test::kNewPepper), 2)},
                     {{&a_, {0}, {}, &uses_}, {&b_, {0}}, {&c_, {1, 2}}},
                     kLimits};
  UseMoment moment_{kRealUs, 5};
  VerdictStats stats_;
};

// ---- reduction to the caller's rights

struct Case {
  latchkey_verdict verdict;
  bool reasons;
  bool has_row;  // a row spoke
  bool too_old;  // an unknown key could not be answered for
};

std::vector<Case> cases() {
  std::vector<Case> list;
  for (const latchkey_verdict verdict : all_verdicts()) {
    for (const bool reasons : {false, true}) {
      for (const bool has_row : {false, true}) {
        if (verdict == LATCHKEY_VALID && !has_row) continue;  // a valid key always has a row
        for (const bool too_old : {false, true})
          list.push_back({verdict, reasons, has_row, too_old});
      }
    }
  }
  return list;
}

class TellingEachVerdict : public TellingTest, public testing::WithParamInterface<Case> {
 protected:
  TellingEachVerdict() {
    outcome_ = found(GetParam().verdict);
    if (!GetParam().has_row) outcome_.record = nullptr;
    if (GetParam().too_old) outcome_.verdict_if_unknown = LATCHKEY_UNAVAILABLE;
    rights_ = GetParam().reasons ? all_rights() : without_reasons();
  }
  Outcome outcome_;
  Rights rights_;
};

TEST_P(TellingEachVerdict, TellsAsFoundOrExactlyAsAnUnknownKey) {
  const Told told = tell(outcome_, kAll, rights_);
  if (GetParam().reasons || is_open(GetParam().verdict)) {
    EXPECT_EQ(told.verdict, GetParam().verdict);
    EXPECT_TRUE(told.fresh);
    EXPECT_EQ(told.age_ms, 11U);
    EXPECT_EQ(told.claims.empty(), !GetParam().has_row);
  } else {
    EXPECT_EQ(told, (Told{outcome_.verdict_if_unknown, false, 222, {}}));
    EXPECT_EQ(told, tell(outcome_.as_unknown(), kAll, rights_));
  }
}

TEST_P(TellingEachVerdict, CountsAsFoundAndAsTold) {
  const Told told = tell(outcome_, kAll, rights_);
  EXPECT_THAT(counts(stats_.verdicts), ElementsAre(Pair(GetParam().verdict, 1)));
  EXPECT_THAT(counts(stats_.told), ElementsAre(Pair(told.verdict, 1)));
  for (std::size_t source = 0; source < stats_.verdicts_by_source.size(); ++source) {
    const bool spoke = source == (GetParam().has_row ? 0 : VerdictStats::kNoSource);
    const auto counted = counts(stats_.verdicts_by_source[source]);
    if (spoke) {
      EXPECT_THAT(counted, ElementsAre(Pair(GetParam().verdict, 1))) << source;
    } else {
      EXPECT_THAT(counted, IsEmpty()) << source;
    }
  }
}

std::string case_name(const testing::TestParamInfo<Case>& info) {
  const Case& c = info.param;
  return std::string(verdict_name(c.verdict)) + (c.reasons ? "_reasons" : "") +
         (c.has_row ? "_row" : "") + (c.too_old ? "_too_old" : "");
}
INSTANTIATE_TEST_SUITE_P(Table, TellingEachVerdict, testing::ValuesIn(cases()), case_name);

TEST_F(TellingTest, GivesNoClaimsOfARefusedKeyWithoutReasons) {
  const Outcome revoked = found(LATCHKEY_REVOKED);
  EXPECT_THAT(tell(revoked, kAll, without_reasons()).claims, IsEmpty());
  EXPECT_THAT(tell(revoked, kAll, all_rights()).claims, testing::Contains(Pair(2, "7")))
      << "a caller that may learn the reason learns the owner too";
}

TEST_F(TellingTest, LeavesNoClaimsOfAnEarlierAnswer) {
  const Rights rights = without_reasons();
  Telling telling(verifier_, rights, stats_, 1, moment_);
  Answer answer;
  EXPECT_FALSE(tell(telling, found(LATCHKEY_VALID), kAll, answer).claims.empty());
  EXPECT_THAT(tell(telling, found(LATCHKEY_REVOKED), kAll, answer).claims, IsEmpty());
  EXPECT_FALSE(tell(telling, found(LATCHKEY_VALID), kAll, answer).claims.empty());
  EXPECT_THAT(tell(telling, found(LATCHKEY_VALID), {}, answer).claims, IsEmpty());
}

// ---- counters

TEST_F(TellingTest, CountsTheUnknownKeysOfItsBatchAsTold) {
  const Rights reasons = all_rights(), none = without_reasons();
  Telling frank(verifier_, reasons, stats_, 1, moment_);
  Telling discreet(verifier_, none, stats_, 1, moment_);
  Answer answer;
  EXPECT_EQ(frank.unknown(), 0U);
  for (const latchkey_verdict verdict : all_verdicts()) {
    frank.tell(found(verdict), {}, answer);
    discreet.tell(found(verdict), {}, answer);
  }
  EXPECT_EQ(frank.unknown(), 1U);
  EXPECT_EQ(discreet.unknown(), LATCHKEY_VERDICTS - std::size(kOpen));
  Outcome stale = found(LATCHKEY_UNAVAILABLE);
  stale.verdict_if_unknown = LATCHKEY_UNAVAILABLE;
  discreet.tell(stale, {}, answer);
  EXPECT_EQ(discreet.unknown(), LATCHKEY_VERDICTS - std::size(kOpen)) << "was not told unknown";
}

TEST_F(TellingTest, CountsAcceptedKeysBySourceAndPepper) {
  const std::pair<const char*, const std::string*> peppered[] = {{"old", &test::kOldPepper},
                                                                 {"new", &test::kNewPepper}};
  for (const auto& [id, pepper] : peppered) {
    RecordFacts facts = row(id, "");
    facts.digest = HmacKey(test::as_bytes(*pepper)).digest(id);
    in_c_.upsert(facts);
  }
  in_b_.upsert(row("in b", "revoked", RowState::kRevoked));
  for (const char* key : {"k", "k", "old", "new", "new", "new", "revoked"}) {
    tell(VerifierTest::ask(key));
  }
  std::vector<std::uint64_t> by_source, by_pepper;
  for (std::size_t i = 0; i < 3; ++i) by_source.push_back(stats_.accepted(i).get());
  for (std::size_t i = 0; i < 5; ++i) by_pepper.push_back(stats_.accepted_by_pepper[i].get());
  EXPECT_THAT(by_source, ElementsAre(2, 0, 4));
  // Each version by its own counter, which differs from its place among the digesters.
  EXPECT_THAT(by_pepper, ElementsAre(2, 0, 3, 0, 1));
}

TEST_F(TellingTest, NotesTheUsesOfValidKeysOnly) {
  for (const latchkey_verdict verdict : all_verdicts()) {
    if (verdict == LATCHKEY_VALID) continue;
    tell(found(verdict));
    EXPECT_THAT(uses(), IsEmpty()) << verdict_name(verdict);
  }
  tell(found(LATCHKEY_VALID), {}, without_reasons());
  EXPECT_THAT(uses(), ElementsAre(kRealUs)) << "also for a caller that wants no claims";
  in_b_.upsert(row("in b", "only b"));
  EXPECT_EQ(tell(VerifierTest::ask("only b")).verdict, LATCHKEY_VALID);
  EXPECT_THAT(uses(), IsEmpty()) << "source b records no uses";
}

// ---- claims

TEST_F(TellingTest, GivesTheClaimsInTheirOrder) {
  const Claims expected = {{LATCHKEY_CLAIM_SOURCE, "a"},
                           {LATCHKEY_CLAIM_KEY_ID, "7"},
                           {LATCHKEY_CLAIM_SUBJECT, "the subject"},
                           {LATCHKEY_CLAIM_TENANT, "the tenant"},
                           {LATCHKEY_CLAIM_EXPIRES, eight_bytes(kRealUs / kSecond + 90)},
                           {LATCHKEY_CLAIM_SCOPE, "write read"},
                           {LATCHKEY_CLAIM_METADATA, R"({"a":1})"}};
  EXPECT_EQ(tell(found(LATCHKEY_VALID)).claims, expected);
}

TEST_F(TellingTest, LeavesOutTheClaimsThatTheRowDoesNotHave) {
  in_b_.upsert(row("bare", "bare"));
  const Claims expected = {{LATCHKEY_CLAIM_SOURCE, "b"}, {LATCHKEY_CLAIM_KEY_ID, "bare"}};
  EXPECT_EQ(tell(VerifierTest::ask("bare")).claims, expected);
}

TEST_F(TellingTest, GivesAnEmptySetOfScopesItsClaim) {
  RecordFacts facts = row("8", "no scopes");
  facts.scopes = in_a_.scopes().intern({});
  in_a_.upsert(facts);
  EXPECT_THAT(tell(VerifierTest::ask("no scopes")).claims,
              testing::Contains(Pair(LATCHKEY_CLAIM_SCOPE, "")));
}

TEST_F(TellingTest, GivesMetadataOnlyWithTheRightAndTheWish) {
  const bool both[] = {false, true};
  for (const bool claims : both) {
    for (const bool metadata : both) {
      for (const bool right : both) {
        Rights rights = all_rights();
        rights.metadata = right;
        const Claims told =
            tell(found(LATCHKEY_VALID), {.claims = claims, .metadata = metadata}, rights).claims;
        const std::size_t expected = (claims ? 6U : 0U) + (metadata && right ? 1U : 0U);
        EXPECT_EQ(told.size(), expected) << claims << metadata << right;
        const bool last = !told.empty() && told.back().first == LATCHKEY_CLAIM_METADATA;
        EXPECT_EQ(last, metadata && right) << claims << metadata << right;
      }
    }
  }
}

TEST_F(TellingTest, GivesTheStricterExpiryOfRowAndToken) {
  constexpr std::int64_t kNow = kRealUs;
  const struct {
    std::int64_t row_us, token_us;
    std::optional<std::int64_t> seconds;
  } table[] = {
      {kNeverExpires, kNeverExpires, std::nullopt},
      {kNow, kNeverExpires, kNow / kSecond},
      {kNeverExpires, kNow, kNow / kSecond},
      {kNow, kNow + 60 * kSecond, kNow / kSecond},
      {kNow + 60 * kSecond, kNow, kNow / kSecond},
      {kNow + kSecond - 1, kNeverExpires, kNow / kSecond},  // rounded down
      {0, kNeverExpires, 0},
      {-1, kNeverExpires, -1},  // before 1970 too
      // -infinity has always been past; no time stands for it.
      {kAlwaysValid, kNeverExpires, std::nullopt},
      {kAlwaysValid, kNow, std::nullopt},
      {kAlwaysValid + 1, kNeverExpires, floor_seconds(kAlwaysValid + 1)},
      {kNeverExpires - 1, kNeverExpires, (kNeverExpires - 1) / kSecond},
  };
  for (const auto& c : table) {
    RecordFacts facts = row("9", "timed");
    facts.expires_us = c.row_us;
    in_b_.upsert(facts);
    Outcome outcome = VerifierTest::ask("timed");
    ASSERT_NE(outcome.record, nullptr);
    outcome.token_expires_us = c.token_us;
    Claims expected = {{LATCHKEY_CLAIM_SOURCE, "b"}, {LATCHKEY_CLAIM_KEY_ID, "9"}};
    if (c.seconds) expected.emplace_back(LATCHKEY_CLAIM_EXPIRES, eight_bytes(*c.seconds));
    EXPECT_EQ(tell(outcome).claims, expected) << c.row_us << " and " << c.token_us;
  }
}

// ---- names of sources

TEST_F(TellingTest, FindsTheSourcesOfAName) {
  const struct {
    const char* name;
    SourceMask sources;
    bool all_sources;
    std::optional<SourceMask> named;
  } table[] = {
      {"", 0b111, true, 0b111},  // none: all that the caller may ask
      {"", 0b101, false, 0b101},
      {"", 0, false, 0},
      {"a", 0b111, true, 0b001},
      {"b", 0b111, true, 0b010},
      {"c", 0b100, false, 0b100},
      {"zzz", 0b111, true, std::nullopt},
      {"A", 0b111, true, std::nullopt},
      {"aa", 0b111, true, std::nullopt},
      // A caller of few sources cannot tell the name of another from a name of none.
      {"b", 0b101, false, 0},
      {"zzz", 0b101, false, 0},
  };
  for (const auto& c : table) {
    const Rights rights{.sources = c.sources, .all_sources = c.all_sources};
    EXPECT_EQ(sources_named(c.name, rights, verifier_), c.named)
        << '"' << c.name << "\" of " << c.sources;
  }
}

}  // namespace
}  // namespace latchkey
