// Disclosure to callers: reasons, claims and explanations, each only where a right permits it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/support/conversation_fixture.h"
#include "tests/unit/support/helpers.h"

namespace latchkey {
namespace {

using test::bare_terms;
using test::ConversationTest;
using test::everything;
using test::ping;
using test::row;
using test::status;
using test::sync;
using test::terms;
using test::verify;
using test::why;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::StartsWith;

TEST_F(ConversationTest, TellsReasonsOnlyToWhomTheyAreAllowed) {
  const std::string talk =
      verify(1, {"revoked", "disabled", "deleted", "expired", "early", "nobody's", ""});
  EXPECT_THAT(replies_to(talk),
              ElementsAre("1: revoked source=a id=18, disabled source=a id=19, deleted source=a"
                          " id=20, expired source=a id=21 exp=1700000000, not_yet_valid source=a"
                          " id=22, unknown, malformed"));
  Rights curt = everything();
  curt.reasons = false;
  EXPECT_THAT(replies_to(talk, curt),
              ElementsAre("1: unknown, unknown, unknown, unknown, unknown, unknown, malformed"));
  EXPECT_EQ(stats_.verdicts[LATCHKEY_REVOKED].get(), 2U) << "counted as found";
  EXPECT_THAT(replies_to(verify(1, {"good"}), curt), ElementsAre(StartsWith("1: valid source=a")));
}

// A revoked key must look like an unknown one, in its age too.
TEST_F(ConversationTest, HidesReasonsInTheAgeOfAnAnswerAsWell) {
  Rights curt = everything();
  curt.reasons = false;
  prove(a_, 10 * test::kMs);
  prove(b_, 3'000 * test::kMs);
  EXPECT_EQ(say(verify(1, {"revoked"}), curt).replies, say(verify(1, {"nobody's"}), curt).replies);
}

TEST_F(ConversationTest, TellsClaimsOnlyWhereTheyAreAskedFor) {
  VerifyTerms demanded;
  demanded.want_claims = false;
  EXPECT_THAT(replies_to(verify(1, {"good"}, demanded)), ElementsAre("1: valid"));
  demanded.want_metadata = true;
  EXPECT_THAT(replies_to(verify(1, {"good"}, demanded)), ElementsAre("1: valid meta={\"plan\":1}"));
  demanded.want_claims = true;
  const std::string claims =
      "1: valid source=a id=17 sub=42 tenant=7 scope=read write exp=1700000001";
  EXPECT_THAT(replies_to(verify(1, {"good"}, demanded)),
              ElementsAre(claims + " meta={\"plan\":1}"));
  demanded.want_metadata = false;
  EXPECT_THAT(replies_to(verify(1, {"good"}, demanded)), ElementsAre(claims));
  demanded.want_metadata = true;
  Rights curt = everything();
  curt.metadata = false;
  EXPECT_THAT(replies_to(verify(1, {"good"}, demanded), curt), ElementsAre(claims));
}

TEST_F(ConversationTest, ChecksTheScopesOfEachRequestAgainstItsOwnList) {
  VerifyTerms read, admin, any;
  read.want_claims = admin.want_claims = any.want_claims = false;
  read.all_scopes = {"read", "write"};
  admin.all_scopes = {"read", "admin"};
  any.any_scopes = {"admin", "write"};
  EXPECT_THAT(
      replies_to(verify(1, {"good"}, read) + verify(2, {"good"}, admin) + verify(3, {"good"}, any) +
                 verify(4, {"only b"}, any)),
      ElementsAre("1: valid", "2: insufficient_scope", "3: valid", "4: insufficient_scope"));
}

TEST_F(ConversationTest, RoundsAnExpiryDownBefore1970AsWell) {
  RecordFacts old = row("1", "old");
  old.expires_us = -1;
  in_b_.upsert(old);
  EXPECT_THAT(replies_to(verify(1, {"old"})), ElementsAre("1: expired source=b id=1 exp=-1"));
}

// ---- why

TEST_F(ConversationTest, ExplainsOneKeyAmongOtherRequests) {
  VerifyTerms demanded = terms("a");
  demanded.all_scopes = {"admin"};
  demanded.any_scopes = {"root"};
  EXPECT_THAT(
      replies_to(verify(1, {"good"}, bare_terms()) + why(2, "good", demanded) + why(3, "revoked") +
                 ping(4) + why(5, "good", terms("nowhere")) + why(6, "")),
      ElementsAre("1: valid",
                  testing::AllOf(StartsWith("2: why {\"active\":false,"
                                            "\"verdict\":\"insufficient_scope\","
                                            "\"source\":\"a\",\"key_id\":\"17\""),
                                 HasSubstr("\"missing\":[\"admin\"],\"none_of\":[\"root\"]"),
                                 testing::Not(HasSubstr("\"name\":\"b\""))),
                  testing::AllOf(HasSubstr("\"verdict\":\"revoked\""), HasSubstr("\"name\":\"b\"")),
                  "4: pong", "5: error unknown_source", HasSubstr("\"verdict\":\"malformed\"")));
  EXPECT_EQ(stats_.explained.get(), 3U);
  EXPECT_EQ(stats_.requests.get(), 6U);
  EXPECT_EQ(stats_.accepted(0).get(), 1U) << "to ask why is no use of a key";
}

TEST_F(ConversationTest, AnswersOnlyWhatTheCallerMayAsk) {
  Rights few = everything();
  few.operations = operation(LATCHKEY_VERIFY);
  const std::string talk = verify(1, {"good"}) + status(2) + why(3, "good") + sync(4, 1000) +
                           verify(5, {"good"}) + ping(6);
  EXPECT_THAT(replies_to(talk, few),
              ElementsAre(StartsWith("1: valid"), "2: error operation_not_allowed",
                          "3: error operation_not_allowed", "4: error operation_not_allowed",
                          StartsWith("5: valid"), "6: pong"));
  EXPECT_EQ(stats_.refused_operations.get(), 3U);
  few.operations = operation(LATCHKEY_STATUS);
  EXPECT_THAT(replies_to(verify(1, {"good"}) + ping(2), few),
              ElementsAre("1: error operation_not_allowed", "2: pong"));
  EXPECT_EQ(stats_.accepted(0).get(), 2U);
  EXPECT_EQ(stats_.protocol_errors.get(), 0U);
}

TEST_F(ConversationTest, ExplainsNothingToWhomReasonsAreNotAllowed) {
  Rights curt = everything();
  curt.reasons = false;
  for (const char* key : {"good", "revoked", "nobody's"}) {
    const std::string talk = why(1, key) + why(2, key, terms("nowhere")) + ping(3);
    EXPECT_THAT(replies_to(talk, curt),
                ElementsAre("1: error no_reasons", "2: error no_reasons", "3: pong"));
  }
  EXPECT_EQ(stats_.refused_no_reasons.get(), 6U);
  EXPECT_EQ(stats_.explained.get(), 0U);
  EXPECT_EQ(stats_.protocol_errors.get(), 0U);
}

TEST_F(ConversationTest, ExplainsNothingOfSourcesThatTheCallerMayNotUse) {
  Rights some = everything();
  some.all_sources = false;
  some.sources = 0b001;
  const auto told = replies_to(
      why(1, "only b") + why(2, "only b", terms("b")) + why(2, "only b", terms("nowhere")), some);
  EXPECT_THAT(told, ElementsAre(HasSubstr("\"verdict\":\"unknown\""),
                                HasSubstr("\"verdict\":\"forbidden\""),
                                HasSubstr("\"verdict\":\"forbidden\"")));
  for (const std::string& text : told) {
    EXPECT_THAT(text, testing::Not(HasSubstr("\"name\":\"b\"")));
    EXPECT_THAT(text, testing::Not(HasSubstr("in b")));
  }
  EXPECT_EQ(told[1], told[2]) << "whether a source exists is none of its business";
}

}  // namespace
}  // namespace latchkey
