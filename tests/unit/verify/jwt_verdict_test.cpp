// The verdict on tokens of tables that keep only the jti.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "tests/unit/support/helpers.h"
#include "tests/unit/support/tokens.h"
#include "tests/unit/support/verifier_fixture.h"
#include "verify/verifier.h"

namespace latchkey {
namespace {

using test::kLimits;
using test::kRealUs;
using test::row;
using test::token;

const std::string kOld(32, 'o'), kNew(32, 'n'), kStranger(32, 's');
const std::string kUuid = "0f8fad5b-d9cb-469f-a165-70867728950e";
const std::string kUuidUpper = "0F8FAD5B-D9CB-469F-A165-70867728950E";
constexpr std::int64_t kNowSeconds = kRealUs / 1'000'000;

// Source a keeps whole keys; j keeps jtis of tokens under two secrets; n of tokens under the new
// one.
class JwtVerdict : public testing::Test {
 protected:
  JwtVerdict() {
    for (KeySet* keys : {&a_, &j_, &n_}) keys->freshness.prove(test::kBootNs);
  }

  Outcome ask(std::string_view key, SourceMask sources = ~SourceMask{0}) const {
    Outcome outcome;
    Terms terms;
    terms.sources = sources;
    const Question question{key, &terms};
    verifier_.verify({&question, 1}, now_, {&outcome, 1});
    return outcome;
  }
  latchkey_verdict verdict(std::string_view key) const { return ask(key).verdict; }

  // Digests as in the query, for a text column and for one of uuid.
  static RecordFacts text_row(std::string_view id, std::string_view jti,
                              RowState state = RowState::kActive) {
    return row(id, jti, state);
  }
  static RecordFacts uuid_row(std::string_view id, std::string_view jti) {
    RecordFacts facts = row(id, "");
    facts.digest = *jti_digests(jti).uuid;
    return facts;
  }
  static std::string claims(const std::string& jti, const std::string& more = "") {
    return "{\"jti\":\"" + jti + "\"" + more + "}";
  }
  static std::string seconds(std::int64_t from_now) {
    return std::to_string(kNowSeconds + from_now);
  }

  Quiescence quiescence_;
  KeySet a_{"a", quiescence_}, j_{"j", quiescence_}, n_{"n", quiescence_};
  KeySetWriter in_a_{a_, quiescence_}, in_j_{j_, quiescence_}, in_n_{n_, quiescence_};
  Verifier verifier_{{Digester(), Digester::of_jwts("old", test::as_bytes(kOld), 1),
                      Digester::of_jwts("new", test::as_bytes(kNew), 2)},
                     {{&a_, {0}}, {&j_, {1, 2}}, {&n_, {2}}},
                     kLimits};
  Now now_{kRealUs, test::kBootNs};
};

TEST_F(JwtVerdict, KnowsATokenByItsJti) {
  in_j_.upsert(text_row("1", "t"));
  for (const auto& [secret, digester] : {std::pair(kOld, 1U), std::pair(kNew, 2U)}) {
    const Outcome outcome = ask(token(secret, claims("t")));
    EXPECT_EQ(outcome.verdict, LATCHKEY_VALID);
    EXPECT_EQ(outcome.record->key_id(), "1");
    EXPECT_EQ(outcome.route, 1U);
    EXPECT_EQ(outcome.digester, digester) << "hits are counted by secret";
    EXPECT_EQ(outcome.held_by, SourceMask{0b010});
    EXPECT_EQ(outcome.token_expires_us, kNeverExpires);
  }
  EXPECT_EQ(verdict(token(kOld, claims("u"))), LATCHKEY_UNKNOWN) << "no such row";
  in_j_.upsert(text_row("1", "t", RowState::kRevoked));
  EXPECT_EQ(verdict(token(kOld, claims("t"))), LATCHKEY_REVOKED);
  in_j_.remove("1");
  EXPECT_EQ(verdict(token(kOld, claims("t"))), LATCHKEY_UNKNOWN);
}

TEST_F(JwtVerdict, KnowsNothingButWhatItsSecretSigned) {
  in_j_.upsert(text_row("1", "t"));
  in_n_.upsert(text_row("2", "new"));
  const std::string good = token(kOld, claims("t"));
  const std::string unsigned_part = good.substr(0, good.rfind('.'));
  for (const std::string& bad :
       {token(kStranger, claims("t")), unsigned_part, unsigned_part + ".", unsigned_part + ".AAAA",
        token(kOld, claims("t"), R"({"alg":"none"})"),
        token(kOld, claims("t"), R"({"alg":"HS384"})"), token(kOld, "{}"), token(kOld, claims("")),
        token(kOld, R"({"jti":["t"]})"), token(kOld, claims("t", ",\"exp\":\"never\"")),
        token(kOld, claims("t", ",\"exp\":true")), token(kOld, claims("t", ",\"nbf\":[]")),
        token(kOld, claims("t", ",\"jti\":\"t\"")), token(kOld, claims("t") + "x"),
        token(kOld, claims("T")), token(kOld, "\"t\""),
        // a jti or its digest is not a key, and neither is another form of it
        std::string("t"), claims("t"), test::base64(claims("t"), true, false)}) {
    EXPECT_EQ(verdict(bad), LATCHKEY_UNKNOWN) << bad;
    EXPECT_EQ(ask(bad).record, nullptr) << bad;
  }
  EXPECT_EQ(verdict(token(kNew, claims("new"))), LATCHKEY_VALID);
  EXPECT_EQ(verdict(token(kOld, claims("new"))), LATCHKEY_UNKNOWN) << "n does not know the old one";
  EXPECT_EQ(verdict("sk_" + good), LATCHKEY_UNKNOWN);
  EXPECT_EQ(verdict(good + std::string(1, '\0')), LATCHKEY_MALFORMED);
}

TEST_F(JwtVerdict, LetsAnotherSourceKnowTheWholeText) {
  const std::string foreign = token(kStranger, claims("t")), ours = token(kOld, claims("t"));
  in_j_.upsert(text_row("1", "t"));
  in_a_.upsert(row("2", foreign));
  EXPECT_EQ(ask(foreign).record->key_id(), "2");
  in_a_.upsert(row("3", ours, RowState::kRevoked));
  EXPECT_EQ(verdict(ours), LATCHKEY_REVOKED) << "whoever revokes it anywhere has revoked it";
  EXPECT_EQ(ask(ours).held_by, SourceMask{0b011});
  EXPECT_EQ(ask(ours, 0b010).verdict, LATCHKEY_VALID);
  in_a_.upsert(row("4", "t"));
  EXPECT_EQ(ask("t").record->key_id(), "4") << "here the text is the key";
}

TEST_F(JwtVerdict, DrawsTheTokensTimesToTheMicrosecond) {
  in_j_.upsert(text_row("1", "t"));
  const struct {
    std::string times;
    std::int64_t now_us;
    latchkey_verdict verdict;
    std::int64_t expires_us;
  } cases[] = {
      {",\"exp\":" + seconds(0), kRealUs, LATCHKEY_EXPIRED, kRealUs},
      {",\"exp\":" + seconds(0), kRealUs - 1, LATCHKEY_VALID, kRealUs},
      {",\"exp\":" + seconds(1), kRealUs, LATCHKEY_VALID, kRealUs + 1'000'000},
      {",\"exp\":" + seconds(0) + ".5", kRealUs + 499'999, LATCHKEY_VALID, kRealUs + 500'000},
      {",\"exp\":" + seconds(0) + ".5", kRealUs + 500'000, LATCHKEY_EXPIRED, kRealUs + 500'000},
      {",\"exp\":0", kRealUs, LATCHKEY_EXPIRED, 0},
      {",\"exp\":-1e300", kRealUs, LATCHKEY_EXPIRED, kAlwaysValid},
      {",\"exp\":null", kRealUs, LATCHKEY_VALID, kNeverExpires},
      {",\"nbf\":" + seconds(0), kRealUs, LATCHKEY_VALID, kNeverExpires},
      {",\"nbf\":" + seconds(0), kRealUs - 1, LATCHKEY_NOT_YET_VALID, kNeverExpires},
      {",\"nbf\":" + seconds(1) + ",\"exp\":" + seconds(0), kRealUs, LATCHKEY_EXPIRED, kRealUs},
  };
  for (const auto& c : cases) {
    now_.real_us = c.now_us;
    const Outcome outcome = ask(token(kOld, claims("t", c.times)));
    EXPECT_EQ(outcome.verdict, c.verdict) << c.times;
    EXPECT_EQ(outcome.token_expires_us, c.expires_us) << c.times;
  }
}

TEST_F(JwtVerdict, KeepsTheRowsOwnTimesToo) {
  RecordFacts f = text_row("1", "t");
  f.expires_us = kRealUs;
  in_j_.upsert(f);
  const std::string lasting = token(kOld, claims("t", ",\"exp\":" + seconds(1000)));
  EXPECT_EQ(verdict(lasting), LATCHKEY_EXPIRED);
  f.expires_us = kNeverExpires;
  f.not_before_us = kRealUs + 1;
  in_j_.upsert(f);
  EXPECT_EQ(verdict(lasting), LATCHKEY_NOT_YET_VALID);
}

TEST_F(JwtVerdict, MatchesUuidsInEitherCaseAndTextsExactly) {
  in_j_.upsert(uuid_row("uuid", kUuid));
  EXPECT_EQ(verdict(token(kOld, claims(kUuid))), LATCHKEY_VALID);
  EXPECT_EQ(verdict(token(kOld, claims(kUuidUpper))), LATCHKEY_VALID);
  EXPECT_EQ(verdict(token(kOld, claims("{" + kUuid + "}"))), LATCHKEY_UNKNOWN);
  in_j_.remove("uuid");
  in_j_.upsert(text_row("text", kUuid));
  EXPECT_EQ(verdict(token(kOld, claims(kUuid))), LATCHKEY_VALID);
  EXPECT_EQ(verdict(token(kOld, claims(kUuidUpper))), LATCHKEY_UNKNOWN);
  in_j_.upsert(text_row("text", kUuidUpper));
  EXPECT_EQ(verdict(token(kOld, claims(kUuid))), LATCHKEY_UNKNOWN);
  EXPECT_EQ(verdict(token(kOld, claims(kUuidUpper))), LATCHKEY_VALID);
}

TEST_F(JwtVerdict, AnswersABatchAsOneByOne) {
  test::Random random;
  for (int i = 0; i < 20; ++i) {
    const std::string id = std::to_string(i);
    RecordFacts f = text_row(id, "jti " + id);
    if (i % 5 == 0) f.state = RowState::kRevoked;
    (i % 2 == 0 ? in_j_ : in_n_).upsert(f);
    in_a_.upsert(row(id, "key " + id));
  }
  for (std::size_t size = 0; size <= Verifier::kBatchMax; ++size) {
    std::vector<std::string> keys(size);
    Terms terms[2];
    terms[1].sources = 0b110;
    std::vector<Question> questions;
    for (std::string& key : keys) {
      const std::string number = std::to_string(random.below(25));
      const std::string* secrets[] = {&kOld, &kNew, &kStranger};
      switch (random.below(4)) {
        case 0: key = "key " + number; break;
        case 1: key = ""; break;
        default:
          key = token(*secrets[random.below(3)],
                      claims("jti " + number, random.below(2) == 0 ? "" : ",\"exp\":5"));
      }
      questions.push_back({key, &terms[random.below(2)]});
    }
    std::vector<Outcome> outcomes(size);
    verifier_.verify(questions, now_, outcomes);
    for (std::size_t i = 0; i < size; ++i) {
      const Outcome alone = ask(keys[i], questions[i].terms->sources);
      ASSERT_EQ(outcomes[i].verdict, alone.verdict) << keys[i];
      ASSERT_EQ(outcomes[i].record, alone.record) << keys[i];
      ASSERT_EQ(outcomes[i].digester, alone.digester) << keys[i];
      ASSERT_EQ(outcomes[i].token_expires_us, alone.token_expires_us) << keys[i];
    }
  }
}

}  // namespace
}  // namespace latchkey
