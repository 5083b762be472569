// The answer to `why`: the verifier's verdict, and every failing condition.
#include "verify/explain.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <set>

#include "base/wire_names.h"
#include "protocol/codec.h"
#include "tests/unit/support/helpers.h"
#include "tests/unit/support/verifier_fixture.h"
#include "tool/mint.h"

namespace latchkey {
namespace {

using nlohmann::json;
using test::kMs;
using test::kRealUs;
using test::row;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;

class ExplainTest : public test::VerifierTest {
 protected:
  json why(std::string_view key, const Terms& terms = {}) const {
    return json::parse(explain(verifier_, {key, &terms}, now_));
  }
  RecordFacts peppered(std::string_view id, std::string_view key, const std::string& pepper,
                       RowState state = RowState::kActive) const {
    RecordFacts facts = row(id, "", state);
    facts.digest = HmacKey(test::as_bytes(pepper)).digest(key);
    return facts;
  }
};

// The names of each condition of each row, and the ids of rows.
std::vector<std::string> conditions(const json& told, std::size_t at = 0) {
  std::vector<std::string> names;
  for (const json& condition : told.at("rows").at(at).at("failing")) {
    names.push_back(condition.at("condition"));
  }
  return names;
}

TEST_F(ExplainTest, TellsOfAGoodKeyWhoseItIsAndWhereItWasLookedFor) {
  RecordFacts facts = peppered("17", "k", test::kNewPepper);
  facts.subject = "42";
  facts.tenant = "7";
  facts.scopes = in_c_.scopes().intern({"write", "read"});
  facts.expires_us = kRealUs + 1'500'000;
  facts.not_before_us = kRealUs - 1;
  in_c_.upsert(facts);
  prove(c_, 12 * kMs);
  EXPECT_EQ(why("k"), json::parse(R"({
    "active": true, "verdict": "valid", "source": "c", "key_id": "17", "fresh": true, "age_ms": 12,
    "speaks_because": "only_row",
    "key": {"bytes": 1, "form": "other"},
    "sources": [
      {"name": "a", "scheme": "", "state": "fresh", "age_ms": 0,
       "tried": [{"digest": "SHA-256", "found": false}]},
      {"name": "b", "scheme": "", "state": "fresh", "age_ms": 0,
       "tried": [{"digest": "SHA-256", "found": false}]},
      {"name": "c", "scheme": "", "state": "fresh", "age_ms": 12,
       "tried": [{"digest": "HMAC-SHA-256 under pepper v1", "pepper": "v1", "found": false},
                 {"digest": "HMAC-SHA-256 under pepper v2", "pepper": "v2", "found": true}]}],
    "rows": [
      {"source": "c", "key_id": "17", "digest": "HMAC-SHA-256 under pepper v2", "pepper": "v2",
       "speaks": true, "sub": "42", "tenant": "7", "scope": "write read",
       "exp": 1700000001, "nbf": 1699999999, "failing": []}]})"));
}

TEST_F(ExplainTest, ListsEveryConditionNotJustTheFirst) {
  RecordFacts facts = row("1", "k", RowState::kRevoked);
  facts.expires_us = kRealUs - 90'000'000;
  facts.not_before_us = kRealUs + 60'000'000;
  facts.scopes = in_a_.scopes().intern({"read"});
  in_a_.upsert(facts);
  const std::string_view all[] = {"read", "write", "admin"}, any[] = {"x", "y"};
  Terms terms;
  terms.all_scopes = all;
  terms.any_scopes = any;
  const json told = why("k", terms);
  EXPECT_EQ(told["verdict"], "revoked");
  EXPECT_EQ(told["rows"][0]["failing"], json::parse(R"([
    {"condition": "revoked"},
    {"condition": "expired", "at": 1699999910, "for_s": 90.0},
    {"condition": "not_yet_valid", "at": 1700000060, "in_s": 60.0},
    {"condition": "insufficient_scope", "missing": ["write", "admin"], "none_of": ["x", "y"]}])"));
}

TEST_F(ExplainTest, TellsEachConditionAlone) {
  const std::string_view read[] = {"read"};
  Terms demanding;
  demanding.all_scopes = read;
  Terms any;
  any.any_scopes = read;
  RecordFacts expired = row("expired", "expired"), early = row("early", "early");
  expired.expires_us = kRealUs;  // at that instant
  early.not_before_us = kRealUs + 1;
  in_a_.upsert(expired);
  in_a_.upsert(early);
  in_a_.upsert(row("revoked", "revoked", RowState::kRevoked));
  in_a_.upsert(row("disabled", "disabled", RowState::kDisabled));
  in_a_.upsert(row("deleted", "deleted", RowState::kDeleted));
  in_a_.upsert(row("good", "good"));
  const struct {
    const char* key;
    const Terms terms;
    const char* condition;
  } cases[] = {{"expired", {}, "expired"},         {"early", {}, "not_yet_valid"},
               {"revoked", {}, "revoked"},         {"disabled", {}, "disabled"},
               {"deleted", {}, "deleted"},         {"good", demanding, "insufficient_scope"},
               {"good", any, "insufficient_scope"}};
  for (const auto& c : cases) {
    const json told = why(c.key, c.terms);
    EXPECT_EQ(told["verdict"], c.condition);
    EXPECT_EQ(told["active"], false);
    EXPECT_EQ(told["key_id"], c.key);
    EXPECT_THAT(conditions(told), ElementsAre(c.condition));
  }
  EXPECT_THAT(conditions(why("good")), IsEmpty());
}

TEST_F(ExplainTest, CallsNoInfinityATime) {
  RecordFacts always = row("1", "always"), never = row("2", "never");
  always.expires_us = kAlwaysValid;  // -infinity: always expired
  never.not_before_us = kNeverExpires;
  in_a_.upsert(always);
  in_a_.upsert(never);
  EXPECT_EQ(why("always")["rows"][0]["failing"], json::parse(R"([{"condition": "expired"}])"));
  EXPECT_EQ(why("never")["rows"][0]["failing"], json::parse(R"([{"condition": "not_yet_valid"}])"));
  EXPECT_FALSE(why("always")["rows"][0].contains("exp"));
}

// ---- several rows

TEST_F(ExplainTest, NamesTheRowsThatShareAKeyWithinASource) {
  in_a_.upsert(row("17", "k"));
  in_a_.upsert(row("18", "k"));
  const json told = why("k");
  EXPECT_EQ(told["verdict"], "disabled");
  EXPECT_EQ(told["rows"][0]["failing"],
            json::parse(R"([{"condition": "ambiguous", "key_ids": ["17", "18"]}])"));
  for (int i = 0; i < 20; ++i) in_a_.upsert(row("more " + std::to_string(i), "k"));
  const json many = why("k")["rows"][0]["failing"][0];
  EXPECT_EQ(many["key_ids"].size(), 8U);
  EXPECT_EQ(many["key_ids"][2], "more 0");
  EXPECT_EQ(many["more"], true);
  for (int i = 0; i < 20; ++i) in_a_.remove("more " + std::to_string(i));
  in_a_.remove("17");
  EXPECT_EQ(why("k")["verdict"], "valid");
}

TEST_F(ExplainTest, CountsRowsWhoseIdsAreTooLongToName) {
  const std::string first(600, 'x'), second(500, 'y');
  in_a_.upsert(row(first, "k"));
  in_a_.upsert(row(second, "k"));
  EXPECT_EQ(why("k")["rows"][0]["failing"],
            json::parse("[{\"condition\": \"ambiguous\", \"key_ids\": [\"" + second +
                        "\"], \"more\": true}]"));
}

TEST_F(ExplainTest, SaysSoWhereRowsAreBeingChanged) {
  in_a_.upsert(row("17", "k"));
  in_a_.upsert(row("18", "k"));
  const KeySetWriter::Batch batch(in_a_);
  in_a_.remove("17");
  EXPECT_EQ(why("k")["rows"][0]["failing"],
            json::parse(R"([{"condition": "changing", "key_ids": ["18"]}])"));
  in_a_.remove("18");
  EXPECT_THAT(conditions(why("k")), ElementsAre("changing"));
}

TEST_F(ExplainTest, NamesTheRowsThatAreGoodUnderTwoPeppers) {
  in_c_.upsert(peppered("17", "k", test::kOldPepper));
  in_c_.upsert(peppered("18", "k", test::kNewPepper));
  const json told = why("k");
  EXPECT_EQ(told["verdict"], "disabled");
  EXPECT_EQ(told["speaks_because"], "ambiguous");
  EXPECT_EQ(told["rows"][0]["failing"],
            json::parse(R"([{"condition": "ambiguous", "key_ids": ["17", "18"]}])"));
  EXPECT_EQ(told["rows"][1]["failing"],
            json::parse(R"([{"condition": "ambiguous", "key_ids": ["18", "17"]}])"));
  in_c_.upsert(peppered("18", "k", test::kNewPepper, RowState::kRevoked));
  EXPECT_EQ(why("k")["verdict"], "revoked");
}

TEST_F(ExplainTest, TellsARowThatAnotherSourceRefusesIt) {
  in_a_.upsert(row("1", "k"));
  in_b_.upsert(row("2", "k", RowState::kDeleted));
  const json told = why("k");
  EXPECT_EQ(told["verdict"], "deleted");
  EXPECT_EQ(told["speaks_because"], "refuses");
  EXPECT_EQ(told["rows"][0]["key_id"], "2");
  EXPECT_EQ(told["rows"][0]["speaks"], true);
  EXPECT_EQ(told["rows"][1]["speaks"], false);
  EXPECT_EQ(told["rows"][1]["failing"],
            json::parse(R"([{"condition": "other_row_refuses", "source": "b", "key_id": "2"}])"));
}

TEST_F(ExplainTest, TellsThatTheFirstOfTwoGoodSourcesSpeaks) {
  in_b_.upsert(row("2", "k"));
  in_a_.upsert(row("1", "k"));
  const json told = why("k");
  EXPECT_EQ(told["verdict"], "valid");
  EXPECT_EQ(told["speaks_because"], "first");
  EXPECT_EQ(told["key_id"], "1");
  EXPECT_THAT(conditions(told, 1), IsEmpty());
}

TEST_F(ExplainTest, TellsOfNoSourceThatTheTermsLeaveOut) {
  in_a_.upsert(row("1", "k", RowState::kRevoked));
  in_b_.upsert(row("2", "k"));
  Terms terms;
  terms.sources = 0b110;
  const json told = why("k", terms);
  EXPECT_EQ(told["verdict"], "valid");
  ASSERT_EQ(told["sources"].size(), 2U);
  EXPECT_EQ(told["sources"][0]["name"], "b");
  EXPECT_EQ(told["rows"].size(), 1U);
  terms.sources = 0;
  const json forbidden = why("k", terms);
  EXPECT_EQ(forbidden["verdict"], "forbidden");
  EXPECT_THAT(forbidden["sources"], IsEmpty());
  EXPECT_THAT(forbidden["rows"], IsEmpty());
  EXPECT_FALSE(forbidden.contains("age_ms"));
}

// ---- age

TEST_F(ExplainTest, SaysWhichSourceIsTooOldAndWhatWasKnownLast) {
  in_a_.upsert(row("1", "k", RowState::kRevoked));
  prove(a_, 60'001 * kMs);
  b_.freshness.forget();
  prove(c_, 7'000 * kMs);
  Terms terms;
  terms.max_age_ms = 6'999;
  const json told = why("k", terms);
  EXPECT_EQ(told["verdict"], "unavailable");
  EXPECT_FALSE(told.contains("key_id")) << "no row speaks";
  EXPECT_EQ(told["rows"][0]["speaks"], false);
  EXPECT_THAT(conditions(told), ElementsAre("revoked"));
  const json& sources = told["sources"];
  EXPECT_EQ(sources[0]["too_old"], "max_stale");
  EXPECT_EQ(sources[0]["state"], "unavailable");
  EXPECT_EQ(sources[0]["age_ms"], 60'001);
  EXPECT_EQ(sources[1]["too_old"], "never_loaded");
  EXPECT_EQ(sources[1]["state"], "loading");
  EXPECT_FALSE(sources[1].contains("age_ms"));
  EXPECT_EQ(sources[2]["too_old"], "max_age");
  EXPECT_EQ(sources[2]["state"], "stale");
  EXPECT_FALSE(why("k")["sources"][2].contains("too_old"));
}

// ---- shape

TEST_F(ExplainTest, TellsWhatKindOfTextAKeyIs) {
  const struct {
    std::string key;
    const char* shape;
  } cases[] = {
      {"k", R"({"bytes": 1, "form": "other"})"},
      {"a.b.c", R"({"bytes": 5, "form": "jwt"})"},
      {"a.b-_.c9", R"({"bytes": 8, "form": "jwt"})"},
      {"a.b", R"({"bytes": 3, "form": "other"})"},
      {"a.b.c.d", R"({"bytes": 7, "form": "other"})"},
      {"a..c", R"({"bytes": 4, "form": "other"})"},
      {"a.b.c=", R"({"bytes": 6, "form": "other"})"},
      {" k", R"({"bytes": 2, "form": "other", "odd": ["leading_space", "white_space"]})"},
      {"k\t", R"({"bytes": 2, "form": "other", "odd": ["trailing_space", "white_space"]})"},
      {"k k", R"({"bytes": 3, "form": "other", "odd": ["white_space"]})"},
      {"k\x1b", R"({"bytes": 2, "form": "other", "odd": ["control_character"]})"},
      {"k\xc3\xa9", R"({"bytes": 3, "form": "other", "odd": ["non_ascii"]})"},
  };
  for (const auto& c : cases) EXPECT_EQ(why(c.key)["key"], json::parse(c.shape)) << c.key;
}

TEST_F(ExplainTest, ChecksTheChecksumOfAMintedKey) {
  std::string key = mint_key("acme");
  EXPECT_EQ(why(key)["key"],
            json::parse(R"({"bytes": 33, "form": "minted", "checksum": "right"})"));
  key[7] = key[7] == 'x' ? 'y' : 'x';
  EXPECT_EQ(why(key)["key"]["checksum"], "wrong");
  key.pop_back();
  EXPECT_EQ(why(key)["key"]["form"], "other");
}

TEST_F(ExplainTest, SaysWhatAMalformedKeyIs) {
  const std::string long_key(LATCHKEY_KEY_BYTES_MAX + 1, 'x');
  EXPECT_EQ(why("")["malformed"], "empty");
  EXPECT_EQ(why(long_key)["malformed"], "too_long");
  EXPECT_EQ(why(std::string_view("a\0b", 3))["malformed"], "zero_byte");
  EXPECT_EQ(why("")["verdict"], "malformed");
  EXPECT_THAT(why("")["sources"][0]["tried"], IsEmpty()) << "nothing was looked up";
}

TEST_F(ExplainTest, LooksForTheKeyWithoutWhatWasCopiedWithIt) {
  in_a_.upsert(row("1", "sk_1"));
  in_b_.upsert(row("2", "sk_2", RowState::kRevoked));
  for (const char* copied : {"sk_1 ", "\t sk_1", "\"sk_1\"", "'sk_1'", "Bearer sk_1",
                             "Authorization: Bearer sk_1\r", " \" sk_1 \" "}) {
    const json told = why(copied);
    EXPECT_EQ(told["verdict"], "unknown") << copied;
    EXPECT_EQ(told["stripped_verdict"], "valid") << copied;
    EXPECT_THAT(told["rows"], IsEmpty());
  }
  EXPECT_EQ(why("sk_2 ")["stripped_verdict"], "revoked");
  EXPECT_EQ(why("sk_3 ")["stripped_verdict"], "unknown");
  EXPECT_FALSE(why("sk_3").contains("stripped_verdict"));
  EXPECT_FALSE(why("sk_1").contains("stripped_verdict"));
  EXPECT_FALSE(why("  ").contains("stripped_verdict"));
}

// Characters added to a text by editors, chats and web pages, and prefixes added by applications.
TEST_F(ExplainTest, SeesThroughDecorations) {
  in_a_.upsert(row("bare", "bare0123"));
  for (const char* decorated : {"\xEF\xBB\xBF"
                                "bare0123",
                                "bare0123\xE2\x80\x8B", "ba\xC2\xADre0123",
                                "\xC2\xA0"
                                "bare0123 "}) {
    const auto told = why(decorated);
    EXPECT_EQ(told["verdict"], "unknown");
    EXPECT_EQ(told["stripped_verdict"], "valid") << decorated;
    EXPECT_FALSE(told.contains("stripped_prefix"));
  }
  for (const std::string prefix : {"17|", "cal_", "cal_live_", "a_b_c_"}) {
    const auto told = why(prefix + "bare0123");
    EXPECT_EQ(told["stripped_verdict"], "valid") << prefix;
    EXPECT_EQ(told["stripped_prefix"], prefix);
  }
  for (const char* other : {"x17|bare0123", "|bare0123", "calbare0123", "a_b_c_d_bare0123",
                            "a_prefix_that_is_too_long_bare0123"}) {
    EXPECT_FALSE(why(other).contains("stripped_prefix")) << other;
  }
}

// A part of the presented text is shown only where a row is known for the rest of it.
TEST_F(ExplainTest, ShowsNoPartOfAKeyThatIsNowhere) {
  a_.freshness.forget();
  b_.freshness.forget();
  c_.freshness.forget();
  const std::string too_long = "sk_live_secret0123" + std::string(LATCHKEY_KEY_BYTES_MAX, ' ');
  const auto told = why(too_long);
  EXPECT_EQ(told["verdict"], "malformed");
  EXPECT_FALSE(told.contains("stripped_prefix")) << told.dump();
}

// ---- the whole

// For every content of the maps, the explanation has the verifier's verdict, and its reasons
// justify it.
TEST_F(ExplainTest, AgreesWithTheVerifier) {
  test::Random random;
  constexpr RowState kStates[] = {RowState::kActive, RowState::kRevoked, RowState::kDisabled,
                                  RowState::kDeleted};
  const std::string_view scopes[] = {"read"};
  for (int i = 0; i < 400; ++i) {
    const std::string id = std::to_string(i), key = std::to_string(random.below(150));
    RecordFacts facts = row(id, key, kStates[random.below(9) % 4 * (random.below(3) == 0)]);
    if (random.below(5) == 0) facts.expires_us = kRealUs;
    if (random.below(9) == 0) facts.not_before_us = kRealUs + 5;
    KeySetWriter* writers[] = {&in_a_, &in_b_, &in_c_};
    const std::size_t chosen = random.below(3);
    if (chosen == 2) {
      facts.digest =
          HmacKey(test::as_bytes(random.below(2) == 0 ? test::kOldPepper : test::kNewPepper))
              .digest(key);
    }
    if (random.below(2) == 0) {
      facts.scopes = writers[chosen]->scopes().intern({"read"});
    }
    writers[chosen]->upsert(facts);
  }
  prove(b_, 30'000 * kMs);
  std::set<std::string> verdicts;
  for (int i = 0; i < 600; ++i) {
    const std::string key = std::to_string(i % 160);
    Terms terms;
    terms.sources = static_cast<SourceMask>(random.below(8));
    if (random.below(2) == 0) terms.all_scopes = scopes;
    if (random.below(4) == 0) terms.max_age_ms = 1000;
    const Outcome outcome = ask(key, terms);
    const json told = why(key, terms);
    ASSERT_EQ(told["verdict"], verdict_name(outcome.verdict));
    ASSERT_EQ(told["fresh"], outcome.fresh);
    ASSERT_EQ(told.value("key_id", ""),
              outcome.record != nullptr ? outcome.record->key_id() : std::string_view());
    verdicts.insert(told["verdict"]);
    if (outcome.record == nullptr) {
      for (const json& found : told["rows"]) ASSERT_EQ(found["speaks"], false);
      continue;
    }
    ASSERT_EQ(told["rows"][0]["speaks"], true);
    const auto failing = conditions(told);
    ASSERT_EQ(failing.empty(), outcome.verdict == LATCHKEY_VALID) << told.dump(1);
    // The verdict is the first of its conditions; "disabled" may also stand for "ambiguous".
    if (!failing.empty() && failing[0] != "ambiguous") {
      ASSERT_EQ(told["verdict"], failing[0]) << told.dump(1);
    }
    for (std::size_t other = 1; other < told["rows"].size(); ++other) {
      if (outcome.verdict == LATCHKEY_VALID || outcome.verdict == LATCHKEY_INSUFFICIENT_SCOPE)
        break;
      ASSERT_FALSE(conditions(told, other).empty()) << told.dump(1);
    }
  }
  EXPECT_THAT(verdicts, testing::IsSupersetOf({"valid", "unknown", "revoked", "disabled", "deleted",
                                               "expired", "not_yet_valid", "insufficient_scope",
                                               "forbidden", "unavailable"}));
}

TEST_F(ExplainTest, NeverRepeatsTheKey) {
  const std::string key = "\"sk_that_must_not_be_told\" ";
  for (const RowState state : {RowState::kActive, RowState::kRevoked}) {
    in_a_.upsert(row("1", key, state));
    const Terms terms;
    EXPECT_THAT(explain(verifier_, {key, &terms}, now_), Not(HasSubstr("must_not")));
  }
  in_a_.remove("1");
  const Terms terms;
  EXPECT_THAT(explain(verifier_, {key, &terms}, now_), Not(HasSubstr("must_not")));
}

TEST_F(ExplainTest, FitsAReplyWhateverStandsInTheRows) {
  const std::string nasty(3900, '\x01');  // six bytes each in JSON
  std::vector<Digester> digesters(1);
  std::vector<std::size_t> peppers;
  for (int i = 0; i < 60; ++i) {
    peppers.push_back(digesters.size());
    digesters.emplace_back("v" + std::to_string(i), test::as_bytes("pepper " + std::to_string(i)),
                           peppers.size());
    in_c_.upsert(peppered(nasty + std::to_string(i), "k", "pepper " + std::to_string(i)));
  }
  const Verifier verifier(std::move(digesters), {{&c_, peppers, "hmac-sha256"}}, test::kLimits);
  const Terms terms;
  const std::string text = explain(verifier, {"k", &terms}, now_);
  EXPECT_LE(text.size(), LATCHKEY_REPLY_BYTES_MAX - LATCHKEY_HEADER_BYTES);
  const json told = json::parse(text);
  EXPECT_EQ(told["left_out"], json::parse(R"(["rows"])"));
  EXPECT_EQ(told["rows_left_out"], 52);
  EXPECT_EQ(told["sources"][0]["tried"].size(), 60U);
}

}  // namespace
}  // namespace latchkey
