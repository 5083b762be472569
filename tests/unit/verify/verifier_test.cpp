// The verdict on keys of several sources: the deciding row, the age of the answer, the scopes.
// (judge_test.cpp: one row at one instant.)
#include <gtest/gtest.h>

#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "tests/unit/support/helpers.h"
#include "tests/unit/support/verifier_fixture.h"
#include "verify/verifier.h"

namespace latchkey {
namespace {

using test::kLimits;
using test::kMs;
using test::kNewPepper;
using test::kOldPepper;
using test::kRealUs;
using test::Random;
using test::row;
using test::VerifierTest;

constexpr RowState kStates[] = {RowState::kActive, RowState::kRevoked, RowState::kDisabled,
                                RowState::kDeleted};

TEST_F(VerifierTest, TellsKnownKeysFromUnknownOnes) {
  in_a_.upsert(row("1", "k"));
  EXPECT_EQ(ask("k").verdict, LATCHKEY_VALID);
  EXPECT_EQ(ask("k").record->key_id(), "1");
  EXPECT_TRUE(ask("k").fresh);
  EXPECT_EQ(ask("other").verdict, LATCHKEY_UNKNOWN);
  EXPECT_EQ(ask("other").record, nullptr);
  in_a_.upsert(row("1", "k", RowState::kRevoked));
  EXPECT_EQ(ask("k").verdict, LATCHKEY_REVOKED);
  EXPECT_EQ(ask("k").record->key_id(), "1") << "why needs the row of a refusal, too";
}

TEST_F(VerifierTest, CallsMalformedWhatNoTableCanHold) {
  const struct {
    std::string key;
    bool malformed;
  } cases[] = {
      {"", true},
      {std::string(1, '\0'), true},
      {std::string("a\0b", 3), true},
      {std::string("a\0", 2), true},
      {std::string(4096, 'k'), false},
      {std::string(4097, 'k'), true},
      {std::string(65535, 'k'), true},
      {"\xff\x01 ", false},
  };
  for (const auto& c : cases) {
    in_a_.upsert(row("1", c.key));
    EXPECT_EQ(ask(c.key).verdict, c.malformed ? LATCHKEY_MALFORMED : LATCHKEY_VALID)
        << c.key.size();
  }
  a_.freshness.forget();
  EXPECT_EQ(ask("").verdict, LATCHKEY_MALFORMED) << "whatever the tables say";
  EXPECT_TRUE(ask("").fresh);
}

TEST_F(VerifierTest, LetsARefusingSourceSpeakBeforeAnAcceptingOne) {
  for (const RowState in_a : kStates) {
    for (const RowState in_b : kStates) {
      in_a_.upsert(row("in a", "k", in_a));
      in_b_.upsert(row("in b", "k", in_b));
      const bool b_speaks = in_a == RowState::kActive && in_b != RowState::kActive;
      const Outcome outcome = ask("k");
      EXPECT_EQ(outcome.route, b_speaks ? 1U : 0U) << "in doubt, the order of the configuration";
      EXPECT_EQ(outcome.record->key_id(), b_speaks ? "in b" : "in a");
      EXPECT_EQ(outcome.verdict == LATCHKEY_VALID,
                in_a == RowState::kActive && in_b == RowState::kActive);
    }
  }
}

// The lookup order of digests differs from the order of the sources.
TEST_F(VerifierTest, KeepsTheOrderOfTheSourcesWhateverTheirDigests) {
  const Verifier verifier({Digester(), Digester("v1", test::as_bytes(kOldPepper), 0)},
                          {{&c_, {1}}, {&a_, {0}}}, kLimits);
  RecordFacts f = row("in c", "");
  f.digest = HmacKey(test::as_bytes(kOldPepper)).digest("k");
  in_c_.upsert(f);
  in_a_.upsert(row("in a", "k"));
  const Terms terms;
  const Question question{"k", &terms};
  Outcome outcome;
  verifier.verify({&question, 1}, now_, {&outcome, 1});
  EXPECT_EQ(outcome.record->key_id(), "in c");
}

TEST_F(VerifierTest, CountsAnExpiredRowAsRefusing) {
  RecordFacts expired = row("in b", "k");
  expired.expires_us = kRealUs;
  in_a_.upsert(row("in a", "k"));
  in_b_.upsert(expired);
  EXPECT_EQ(ask("k").verdict, LATCHKEY_EXPIRED);
  now_.real_us = kRealUs - 1;
  EXPECT_EQ(ask("k").verdict, LATCHKEY_VALID);
}

TEST_F(VerifierTest, AsksOnlyTheSourcesOfTheTerms) {
  in_a_.upsert(row("in a", "k"));
  in_b_.upsert(row("in b", "k", RowState::kRevoked));
  const struct {
    SourceMask sources;
    latchkey_verdict verdict;
  } cases[] = {
      {0b001, LATCHKEY_VALID},     {0b010, LATCHKEY_REVOKED}, {0b011, LATCHKEY_REVOKED},
      {0b100, LATCHKEY_UNKNOWN},   {0b101, LATCHKEY_VALID},   {0b000, LATCHKEY_FORBIDDEN},
      {0b1000, LATCHKEY_FORBIDDEN}  // no such source
  };
  for (const auto& c : cases)
    EXPECT_EQ(ask_sources("k", c.sources).verdict, c.verdict) << c.sources;
  EXPECT_EQ(ask_sources("", 0).verdict, LATCHKEY_FORBIDDEN) << "says nothing of the key";
}

TEST_F(VerifierTest, FindsKeysUnderEveryPepperThatIsAlive) {
  for (const auto& [id, pepper, digester] :
       {std::tuple("old", kOldPepper, 1U), std::tuple("new", kNewPepper, 2U)}) {
    RecordFacts f = row(id, "");
    f.digest = HmacKey(test::as_bytes(pepper)).digest(std::string("key ") + id);
    in_c_.upsert(f);
    const Outcome outcome = ask(std::string("key ") + id);
    EXPECT_EQ(outcome.verdict, LATCHKEY_VALID) << id;
    EXPECT_EQ(outcome.digester, digester) << "hits are counted by version";
    EXPECT_EQ(outcome.route, 2U);
  }
  in_c_.upsert(row("plain", "never peppered"));
  EXPECT_EQ(ask("never peppered").verdict, LATCHKEY_UNKNOWN);
}

TEST_F(VerifierTest, RefusesAKeyThatIsRevokedUnderOneOfItsPeppers) {
  RecordFacts f = row("under the old one", "");
  f.digest = HmacKey(test::as_bytes(kOldPepper)).digest("k");
  in_c_.upsert(f);
  f.key_id = "under the new one";
  f.digest = HmacKey(test::as_bytes(kNewPepper)).digest("k");
  f.state = RowState::kRevoked;
  in_c_.upsert(f);
  EXPECT_EQ(ask("k").verdict, LATCHKEY_REVOKED);
  EXPECT_EQ(ask("k").digester, 2U);
}

// ---- several rows with one key

struct Twin {
  std::size_t source;  // a, b, c
  std::size_t pepper;  // of c
  std::string id;
  RowState state;
  bool expired;
};

// The rule of schemas.md, "Several rows with one key".
std::pair<latchkey_verdict, std::size_t> by_the_rule(const std::vector<Twin>& rows) {
  std::pair<latchkey_verdict, std::size_t> spoken = {LATCHKEY_UNKNOWN, 9};
  for (std::size_t source = 0; source < 3; ++source) {
    std::size_t count = 0, active = 0;
    bool deleted = false, disabled = false, revoked = false, expired = false;
    for (const Twin& row : rows) {
      if (row.source != source) continue;
      ++count;
      active += row.state == RowState::kActive ? 1 : 0;
      deleted |= row.state == RowState::kDeleted;
      disabled |= row.state == RowState::kDisabled;
      revoked |= row.state == RowState::kRevoked;
      expired |= row.expired;
    }
    if (count == 0) continue;
    const latchkey_verdict says = deleted      ? LATCHKEY_DELETED
                                  : disabled   ? LATCHKEY_DISABLED
                                  : revoked    ? LATCHKEY_REVOKED
                                  : active > 1 ? LATCHKEY_DISABLED
                                  : expired    ? LATCHKEY_EXPIRED
                                               : LATCHKEY_VALID;
    if (spoken.first == LATCHKEY_UNKNOWN ||
        (spoken.first == LATCHKEY_VALID && says != LATCHKEY_VALID)) {
      spoken = {says, source};
    }
  }
  return spoken;
}

TEST_F(VerifierTest, JudgesTwinsByOneRuleWhateverTheirOrderAndDigests) {
  Random random;
  const Digest digests[] = {sha256("k"), HmacKey(test::as_bytes(kOldPepper)).digest("k"),
                            HmacKey(test::as_bytes(kNewPepper)).digest("k")};
  KeySetWriter* writers[] = {&in_a_, &in_b_, &in_c_};
  for (int round = 0; round < 3000; ++round) {
    std::vector<Twin> rows(random.below(6));
    for (std::size_t i = 0; i < rows.size(); ++i) {
      rows[i] = {random.below(3), random.below(2), std::to_string(i), kStates[random.below(7) % 4],
                 random.below(4) == 0};
    }
    const auto install = [&](const Twin& twin) {
      RecordFacts f = row(twin.id, "", twin.state);
      f.digest = digests[twin.source < 2 ? 0 : 1 + twin.pepper];
      if (twin.expired) f.expires_us = kRealUs;
      writers[twin.source]->upsert(f);
    };
    std::string first_id;
    for (int order = 0; order < 3; ++order) {
      for (std::size_t i = rows.size(); i > 1; --i) std::swap(rows[i - 1], rows[random.below(i)]);
      for (const Twin& twin : rows) install(twin);
      const Outcome outcome = ask("k");
      const auto [verdict, source] = by_the_rule(rows);
      ASSERT_EQ(outcome.verdict, verdict) << "round " << round;
      if (outcome.record != nullptr) {
        ASSERT_EQ(outcome.route, source);
        const std::string id(outcome.record->key_id());
        if (order == 0) first_id = id;
        ASSERT_EQ(id, first_id) << "the same row speaks, whatever the order";
      }
      for (const Twin& twin : rows) writers[twin.source]->remove(twin.id);
      ASSERT_EQ(ask("k").verdict, LATCHKEY_UNKNOWN);
    }
    for (KeySetWriter* writer : writers) writer->collect();
  }
}

// ---- scopes

TEST_F(VerifierTest, DemandsAllOfSomeScopesAndAnyOfOthers) {
  using Scopes = std::vector<std::string_view>;
  const struct {
    std::optional<std::vector<std::string>> held;
    Scopes all, any;
    bool enough;
  } cases[] = {
      {{{"read", "write"}}, {}, {}, true},
      {{{"read", "write"}}, {"read"}, {}, true},
      {{{"read", "write"}}, {"write", "read"}, {}, true},
      {{{"read", "write"}}, {"read", "admin"}, {}, false},
      {{{"read", "write"}}, {}, {"admin", "write"}, true},
      {{{"read", "write"}}, {}, {"admin", "owner"}, false},
      {{{"read", "write"}}, {"read"}, {"admin", "write"}, true},
      {{{"read", "write"}}, {"read"}, {"admin"}, false},
      {{{"read", "write"}}, {"admin"}, {"read"}, false},
      {{{"read"}}, {"rea"}, {}, false},
      {{{"read"}}, {"Read"}, {}, false},
      {{{"read"}}, {"read:all"}, {}, false},
      {{std::vector<std::string>{}}, {}, {}, true},
      {{std::vector<std::string>{}}, {"read"}, {}, false},
      {std::nullopt, {}, {}, true},  // a table without scopes
      {std::nullopt, {"read"}, {}, false},
      {std::nullopt, {}, {"read"}, false},
  };
  for (std::size_t i = 0; i < std::size(cases); ++i) {
    const auto& c = cases[i];
    RecordFacts f = row("1", "k");
    if (c.held) f.scopes = in_a_.scopes().intern(*c.held);
    in_a_.upsert(f);
    Terms terms;
    terms.all_scopes = c.all;
    terms.any_scopes = c.any;
    EXPECT_EQ(ask("k", terms).verdict, c.enough ? LATCHKEY_VALID : LATCHKEY_INSUFFICIENT_SCOPE)
        << "case " << i;
  }
}

TEST_F(VerifierTest, TellsOfScopesOnlyWhereTheKeyIsGoodOtherwise) {
  in_a_.upsert(row("1", "k", RowState::kRevoked));
  const std::string_view scopes[] = {"read"};
  Terms terms;
  terms.all_scopes = scopes;
  EXPECT_EQ(ask("k", terms).verdict, LATCHKEY_REVOKED);
  EXPECT_EQ(ask("other", terms).verdict, LATCHKEY_UNKNOWN);
}

// ---- batches

TEST_F(VerifierTest, AnswersABatchAsOneByOne) {
  Random random;
  for (int i = 0; i < 200; ++i) {
    const std::string id = std::to_string(i), key = std::to_string(random.below(150));
    RecordFacts f = row(id, key, kStates[random.below(6) % 4]);
    if (random.below(4) == 0) f.expires_us = kRealUs;
    if (random.below(2) == 0) f.scopes = in_a_.scopes().intern({"read"});
    KeySetWriter* writers[] = {&in_a_, &in_b_};
    const std::size_t chosen = random.below(3);
    if (chosen == 2) {
      f.scopes = nullptr;
      f.digest =
          HmacKey(test::as_bytes(random.below(2) == 0 ? kOldPepper : kNewPepper)).digest(key);
      in_c_.upsert(f);
    } else {
      if (chosen == 1) f.scopes = nullptr;  // scope sets belong to their writer
      writers[chosen]->upsert(f);
    }
  }
  prove(b_, 30'000 * kMs);
  const std::string_view scopes[] = {"read"};
  for (std::size_t round = 0; round < 300; ++round) {
    Terms terms[3];
    terms[1].all_scopes = scopes;
    terms[1].max_age_ms = 1000;
    terms[2].sources = static_cast<SourceMask>(random.below(8));
    const std::size_t size = round % (Verifier::kBatchMax + 1);
    std::vector<std::string> keys(size);
    std::vector<Question> questions;
    for (std::string& key : keys) {
      key = random.below(20) == 0 ? "" : std::to_string(random.below(200));
      questions.push_back({key, &terms[random.below(3)]});
    }
    std::vector<Outcome> outcomes(size);
    verifier_.verify(questions, now_, outcomes);
    for (std::size_t i = 0; i < size; ++i) {
      const Outcome alone = ask(keys[i], *questions[i].terms);
      ASSERT_EQ(outcomes[i].verdict, alone.verdict) << keys[i];
      ASSERT_EQ(outcomes[i].record, alone.record) << keys[i];
      ASSERT_EQ(outcomes[i].fresh, alone.fresh) << keys[i];
      ASSERT_EQ(outcomes[i].age_ms, alone.age_ms) << keys[i];
      ASSERT_EQ(outcomes[i].digester, alone.digester) << keys[i];
    }
  }
}

TEST(Verifier, RefusesMoreSourcesOrPeppersThanItsMasksHold) {
  const std::vector<Digester> digesters(kDigestersMax + 1);
  EXPECT_THROW(Verifier(digesters, {}, kLimits), std::length_error);
  Quiescence quiescence;
  KeySet keys("a", quiescence);
  const std::vector<Route> routes(kSourcesMax + 1, Route{&keys, {0}});
  EXPECT_THROW(Verifier({Digester()}, routes, kLimits), std::length_error);
  EXPECT_THROW(Verifier({Digester()}, {{&keys, {1}}}, kLimits), std::out_of_range);
}

}  // namespace
}  // namespace latchkey
