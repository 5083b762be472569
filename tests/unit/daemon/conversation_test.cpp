// The conversation of one connection: bytes in, bytes out. No socket, and a clock that stands
// still.
#include "daemon/unix/conversation.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <limits>

#include "base/wire_names.h"
#include "tests/reference/client_codec.h"
#include "tests/unit/support/helpers.h"
#include "tests/unit/support/verifier_fixture.h"

namespace latchkey {
namespace {

using test::row;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::StartsWith;

constexpr std::string_view kSecret = "a-key-that-must-not-outlive-its-answer";

// ---- requests

VerifyTerms terms(const std::string& source = "") {
  VerifyTerms terms;
  terms.source = source;
  return terms;
}
VerifyTerms bare_terms() {
  VerifyTerms terms;
  terms.want_claims = false;
  return terms;
}
std::string text_of(const OutBuffer& out) { return std::string(as_text(out.bytes())); }

std::string verify(std::uint64_t id, const std::vector<std::string_view>& keys,
                   const VerifyTerms& demanded = {}) {
  OutBuffer out;
  encode_verify(out, id, demanded, keys);
  return text_of(out);
}
std::string why(std::uint64_t id, std::string_view key, const VerifyTerms& demanded = {}) {
  OutBuffer out;
  encode_why(out, id, demanded, key);
  return text_of(out);
}
std::string ping(std::uint64_t id) {
  OutBuffer out;
  encode_ping(out, id);
  return text_of(out);
}
std::string status(std::uint64_t id) {
  OutBuffer out;
  encode_status(out, id);
  return text_of(out);
}
std::string sync(std::uint64_t id, std::uint32_t timeout_ms) {
  OutBuffer out;
  encode_sync(out, id, timeout_ms);
  return text_of(out);
}
std::string frame(int type, std::uint64_t id, std::string_view body = {}) {
  std::string bytes = ping(id) + std::string(body);
  bytes[1] = static_cast<char>(type);
  store_le<std::uint32_t>(reinterpret_cast<std::uint8_t*>(bytes.data()) + 4,
                          static_cast<std::uint32_t>(bytes.size()));
  return bytes;
}
std::string with_byte(std::string bytes, std::size_t at, int value) {
  bytes[at] = static_cast<char>(value);
  return bytes;
}

// ---- replies, one line each

std::string describe_claims(const Claims& claims) {
  std::string text;
  const auto add = [&](const char* name, std::string_view value, bool there) {
    if (there) text += std::string(" ") + name + "=" + std::string(value);
  };
  add("source", claims.source, !claims.source.empty());
  add("id", claims.key_id, !claims.key_id.empty());
  add("sub", claims.subject, !claims.subject.empty());
  add("tenant", claims.tenant, !claims.tenant.empty());
  add("scope", claims.scope, claims.has_scope);
  if (claims.expires) add("exp", std::to_string(*claims.expires), true);
  add("meta", claims.metadata, !claims.metadata.empty());
  return text;
}

std::string describe_body(const FrameHeader& header, Bytes body) {
  std::vector<DecodedAnswer> answers;
  std::string_view text;
  latchkey_error code{};
  std::uint64_t waited_us = 0;
  std::string line;
  switch (header.type) {
    case LATCHKEY_PONG: return body.empty() ? "pong" : "bad pong";
    case LATCHKEY_STATUS_REPLY: return "status " + std::string(as_text(body));
    case LATCHKEY_WHY_REPLY: return "why " + std::string(as_text(body));
    case LATCHKEY_SYNCED: return decode_synced(body, waited_us) ? "bad synced" : "synced";
    case LATCHKEY_ERROR:
      if (decode_error(body, code, text) || text != error_sentence(code)) return "bad error";
      return std::string("error ") + error_name(code);
    case LATCHKEY_VERIFIED:
      if (decode_verified(body, answers)) return "bad verified";
      for (const DecodedAnswer& answer : answers) {
        line += (line.empty() ? "" : ", ") + std::string(verdict_name(answer.verdict)) +
                (answer.fresh ? "" : " old") + describe_claims(answer.claims);
      }
      return line;
    default: return "unknown type";
  }
}

std::vector<std::string> describe(std::string_view replies) {
  std::vector<std::string> lines;
  while (!replies.empty()) {
    FrameHeader header{};
    const Bytes bytes = test::as_bytes(replies);
    if (bytes.size() < LATCHKEY_HEADER_BYTES ||
        parse_header(bytes.first<LATCHKEY_HEADER_BYTES>(), LATCHKEY_REPLY_BYTES_MAX, header) ||
        header.length > bytes.size()) {
      lines.emplace_back("broken frame");
      break;
    }
    const test::Exact body(
        bytes.subspan(LATCHKEY_HEADER_BYTES, header.length - LATCHKEY_HEADER_BYTES));
    lines.push_back(std::to_string(header.request_id) + ": " + describe_body(header, body.bytes()));
    replies.remove_prefix(header.length);
  }
  return lines;
}

// ---- one worker with three sources

Rights everything() {
  return {.sources = 0b111, .all_sources = true, .reasons = true, .metadata = true};
}

class ConversationTest : public test::VerifierTest {
 protected:
  ConversationTest() {
    context_.verifier = &verifier_;
    context_.reader = &reader_;
    context_.stats = &stats_;
    context_.clock = [this] {
      ++clock_readings_;
      return now_;
    };
    context_.status_json = [](const Rights&) { return std::make_shared<const std::string>("{}"); };
    const ScopeSet* scopes = in_a_.scopes().intern({"read", "write"});
    RecordFacts good = row("17", "good");
    good.subject = "42";
    good.tenant = "7";
    good.metadata = "{\"plan\":1}";
    good.scopes = scopes;
    good.expires_us = test::kRealUs + 1'500'000;
    in_a_.upsert(good);
    in_a_.upsert(row("18", "revoked", RowState::kRevoked));
    in_a_.upsert(row("19", "disabled", RowState::kDisabled));
    in_a_.upsert(row("20", "deleted", RowState::kDeleted));
    RecordFacts expired = row("21", "expired");
    expired.expires_us = test::kRealUs;
    in_a_.upsert(expired);
    RecordFacts early = row("22", "early");
    early.not_before_us = test::kRealUs + 1;
    in_a_.upsert(early);
    in_b_.upsert(row("in b", "only b"));
  }

  struct Heard {
    std::string replies;
    bool closed = false;
    std::vector<std::uint32_t> syncs;  // their timeouts
  };

  // Sends the bytes in pieces of these sizes (the last piece is the rest), as a session would.
  Heard say(const std::string& bytes, const Rights& rights = everything(),
            const std::vector<std::size_t>& pieces = {}) {
    FrameBuffer in(LATCHKEY_REQUEST_BYTES_MAX);
    Conversation conversation(rights);
    Heard heard;
    std::size_t at = 0;
    for (std::size_t piece = 0; at < bytes.size() && !heard.closed; ++piece) {
      const auto room = in.writable();
      std::size_t count = std::min(bytes.size() - at, room.size());
      if (piece < pieces.size()) count = std::min(count, pieces[piece]);
      std::memcpy(room.data(), bytes.data() + at, count);
      in.commit(count);
      at += count;
      answer(conversation, in, heard);
    }
    return heard;
  }
  void answer(Conversation& conversation, FrameBuffer& in, Heard& heard) {
    using Next = Conversation::Next;
    for (Next next = Next::kWrite; next != Next::kRead && !heard.closed;) {
      OutBuffer out;
      next = conversation.answer(in, out, context_, scratch_);
      if (next == Next::kSync) {
        heard.syncs.push_back(conversation.sync().timeout_ms);
        encode_synced(out, conversation.sync().request_id, 0);
      }
      heard.closed = next == Next::kClose;
      heard.replies += text_of(out);
    }
  }
  std::vector<std::string> replies_to(const std::string& bytes,
                                      const Rights& rights = everything()) {
    return describe(say(bytes, rights).replies);
  }

  Quiescence::Reader reader_{quiescence_};
  WorkerStats stats_;
  WorkerContext context_;
  BatchScratch scratch_;
  int clock_readings_ = 0;
};

TEST_F(ConversationTest, RepliesInTheOrderOfTheRequests) {
  VerifyTerms bare;
  bare.want_claims = false;
  const std::string talk = verify(1, {"good"}, bare) + verify(2, {"nobody's", "good"}, bare) +
                           ping(3) + verify(4, {"revoked"}, bare) + status(5) + ping(6) +
                           verify(3, {"good"}, bare);  // callers choose their ids freely
  EXPECT_THAT(replies_to(talk), ElementsAre("1: valid", "2: unknown, valid", "3: pong",
                                            "4: revoked", "5: status {}", "6: pong", "3: valid"));
  EXPECT_EQ(stats_.requests.get(), 7U);
  EXPECT_EQ(stats_.verdicts[LATCHKEY_VALID].get(), 3U);
  EXPECT_EQ(stats_.verdicts[LATCHKEY_UNKNOWN].get(), 1U);
  EXPECT_EQ(stats_.accepted(0).get(), 3U);
  EXPECT_EQ(stats_.protocol_errors.get(), 0U);
}

TEST_F(ConversationTest, ReadsOneClockForABatch) {
  (void)say(verify(1, {"a"}) + verify(2, {"b"}) + verify(3, {"c", "d"}));
  EXPECT_EQ(clock_readings_, 1);
  (void)say(verify(1, {"a"}) + ping(2) + verify(3, {"c", "d"}));
  EXPECT_EQ(clock_readings_, 3);
  (void)say(ping(2));
  EXPECT_EQ(clock_readings_, 3);
}

// Requests of every kind, with every demand that a request can make.
std::string mixed_talk(std::size_t requests, test::Random& random) {
  const std::vector<std::string_view> keys = {"good",  "revoked", "disabled", "deleted", "expired",
                                              "early", "only b",  "nobody's", "",        kSecret};
  std::string talk;
  for (std::size_t i = 0; i < requests; ++i) {
    VerifyTerms demanded;
    demanded.want_claims = random.below(2) == 0;
    demanded.want_metadata = random.below(2) == 0;
    if (random.below(3) == 0) demanded.source = random.below(2) == 0 ? "a" : "no-such";
    for (std::size_t s = random.below(3); s > 0; --s) demanded.all_scopes.emplace_back("read");
    for (std::size_t s = random.below(3); s > 0; --s) demanded.any_scopes.emplace_back("write");
    if (random.below(4) == 0) demanded.max_age_ms = 0;
    std::vector<std::string_view> asked;
    for (std::size_t k = 1 + random.below(5); k > 0; --k)
      asked.push_back(keys[random.below(keys.size())]);
    switch (random.below(9)) {
      case 8: talk += why(i, asked.front(), demanded); break;
      case 0: talk += ping(i); break;
      case 1: talk += sync(i, static_cast<std::uint32_t>(1 + i)); break;
      default: talk += verify(i, asked, demanded);
    }
  }
  return talk;
}

// The talk's frames, one by one.
std::vector<std::string> frames_of(std::string_view talk) {
  std::vector<std::string> frames;
  while (!talk.empty()) {
    const auto length = load_le<std::uint32_t>(test::as_bytes(talk).data() + 4);
    frames.emplace_back(talk.substr(0, length));
    talk.remove_prefix(length);
  }
  return frames;
}

TEST_F(ConversationTest, AnswersManyRequestsAtOnceAsOneByOne) {
  test::Random random;
  for (const std::size_t requests : {2U, 40U, 300U, 1500U}) {
    const std::string talk = mixed_talk(requests, random);
    std::string one_by_one;
    std::vector<std::size_t> pieces;
    for (const std::string& request : frames_of(talk)) {
      one_by_one += say(request).replies;
      pieces.push_back(request.size());
    }
    EXPECT_EQ(describe(say(talk).replies), describe(one_by_one));
    EXPECT_EQ(say(talk, everything(), pieces).replies, one_by_one);
    EXPECT_EQ(describe(one_by_one).size(), requests);
  }
}

TEST_F(ConversationTest, FillsItsBatchesToTheBrim) {
  VerifyTerms demanded = terms("a");
  demanded.want_claims = false;
  for (int i = 0; i < LATCHKEY_SCOPES_MAX; ++i) {
    demanded.all_scopes.emplace_back("read");
    demanded.any_scopes.emplace_back("write");
  }
  const std::vector<std::string_view> most(LATCHKEY_BATCH_KEYS_MAX, "good");
  const std::vector<std::string_view> odd(LATCHKEY_BATCH_KEYS_MAX - 1, "revoked");
  std::string talk;
  for (std::uint64_t i = 0; i < 20; ++i) {
    talk += verify(i, i % 3 == 0 ? odd : most, demanded) + verify(i, {"good"}, demanded);
  }
  std::string one_by_one;
  for (const std::string& request : frames_of(talk)) one_by_one += say(request).replies;
  EXPECT_EQ(say(talk).replies, one_by_one);
}

TEST_F(ConversationTest, AnswersAStreamCutAnywhereLikeTheWhole) {
  test::Random random;
  const std::string talk = mixed_talk(12, random) + verify(99, {kSecret}) + "\x02 not a header....";
  const Heard whole = say(talk);
  EXPECT_TRUE(whole.closed);
  EXPECT_THAT(describe(whole.replies).back(), "0: error bad_version");
  for (std::size_t cut = 1; cut < talk.size(); ++cut) {
    const Heard heard = say(talk, everything(), {cut});
    ASSERT_EQ(heard.replies, whole.replies) << "cut at " << cut;
    ASSERT_EQ(heard.syncs, whole.syncs);
    ASSERT_TRUE(heard.closed);
  }
  EXPECT_EQ(say(talk, everything(), std::vector<std::size_t>(talk.size(), 1)).replies,
            whole.replies);
}

// ---- refusals

TEST_F(ConversationTest, AnswersWhatCameBeforeThenRefusesOnceAndCloses) {
  const std::string good = verify(1, {"good"});
  const struct {
    const char* name;
    std::string bytes;
    const char* reply;
  } cases[] = {
      {"version", with_byte(ping(9), 0, 2), "0: error bad_version"},
      {"reserved", with_byte(ping(9), 2, 1), "9: error bad_reserved"},
      {"too short", with_byte(ping(9), 4, 15), "9: error bad_length"},
      {"too long", with_byte(ping(9), 7, 1), "9: error bad_length"},
      {"longer than a request", with_byte(with_byte(ping(9), 6, 1), 4, 1), "9: error bad_length"},
      {"type 0", frame(0, 9), "9: error bad_type"},
      {"type 6", frame(6, 9), "9: error bad_type"},
      {"a reply", frame(LATCHKEY_VERIFIED, 9), "9: error bad_type"},
      {"an error", frame(LATCHKEY_ERROR, 9), "9: error bad_type"},
      {"ping with a body", frame(LATCHKEY_PING, 9, "x"), "9: error trailing"},
      {"status with a body", frame(LATCHKEY_STATUS, 9, "x"), "9: error trailing"},
      {"sync without a body", frame(LATCHKEY_SYNC, 9), "9: error truncated"},
      {"sync with too much", frame(LATCHKEY_SYNC, 9, "\1\1\1\1\1"), "9: error bad_timeout"},
      {"sync for nothing", sync(9, 0), "9: error bad_timeout"},
      {"sync for too long", sync(9, 60'001), "9: error bad_timeout"},
      {"verify without a body", frame(LATCHKEY_VERIFY, 9), "9: error truncated"},
      {"verify flags", with_byte(verify(9, {"k"}), 16, 4), "9: error bad_flags"},
      {"verify reserved", with_byte(verify(9, {"k"}), 21, 1), "9: error bad_reserved"},
      {"no keys", with_byte(verify(9, {"k"}), 22, 0), "9: error bad_count"},
      {"too many keys", with_byte(verify(9, {"k"}), 23, 2), "9: error bad_count"},
      {"too many scopes", with_byte(verify(9, {"k"}), 19, 33), "9: error bad_count"},
      {"source too long", with_byte(verify(9, {"k"}), 18, 64), "9: error bad_source"},
      {"source name", verify(9, {"k"}, terms("a/b")), "9: error bad_source"},
      {"why without a body", frame(LATCHKEY_WHY, 9), "9: error truncated"},
      {"why with flags", with_byte(why(9, "k"), 16, 1), "9: error bad_flags"},
      {"why of two keys", frame(LATCHKEY_WHY, 9, verify(9, {"k", "k"}, bare_terms()).substr(16)),
       "9: error bad_count"},
      {"why with too much", frame(LATCHKEY_WHY, 9, why(9, "k").substr(16) + "x"),
       "9: error trailing"},
      {"key past the end", with_byte(verify(9, {"k"}), 28, 2), "9: error truncated"},
      {"trailing", frame(LATCHKEY_VERIFY, 9, verify(9, {"k"}).substr(16) + "x"),
       "9: error trailing"},
  };
  std::uint64_t errors = 0;
  for (const auto& c : cases) {
    SCOPED_TRACE(c.name);
    const Heard heard = say(good + good + c.bytes + good + ping(10));
    EXPECT_TRUE(heard.closed);
    EXPECT_THAT(describe(heard.replies),
                ElementsAre(StartsWith("1: valid"), StartsWith("1: valid"), c.reply));
    EXPECT_EQ(stats_.protocol_errors.get(), ++errors);
    EXPECT_THAT(replies_to(c.bytes), ElementsAre(c.reply));
    ++errors;
  }
}

TEST_F(ConversationTest, GoesOnAfterAnUnknownSource) {
  EXPECT_THAT(replies_to(verify(1, {"good"}) + verify(2, {"good", "x"}, terms("nowhere")) +
                         verify(3, {"only b"}, terms("b")) + verify(4, {"only b"}, terms("a"))),
              ElementsAre(StartsWith("1: valid"), "2: error unknown_source",
                          "3: valid source=b id=in b", "4: unknown"));
}

TEST_F(ConversationTest, DoesNotTellWhichSourcesThereAreToWhoMayNotUseThemAll) {
  Rights some = everything();
  some.all_sources = false;
  some.sources = 0b001;
  EXPECT_THAT(
      replies_to(verify(1, {"only b"}, terms("b")) + verify(2, {"x"}, terms("nowhere")) +
                     verify(3, {"good"}, terms("a")) + verify(4, {"only b"}),
                 some),
      ElementsAre("1: forbidden old", "2: forbidden old", StartsWith("3: valid"), "4: unknown"));
  some.sources = 0;
  EXPECT_THAT(replies_to(verify(1, {"good"}), some), ElementsAre("1: forbidden old"));
}

// ---- disclosure to callers

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

// ---- pauses

TEST_F(ConversationTest, LetsLaterFramesWaitForASync) {
  FrameBuffer in(LATCHKEY_REQUEST_BYTES_MAX);
  Rights some = everything();
  some.sources = 0b101;
  Conversation conversation(some);
  OutBuffer out;
  const std::string talk =
      verify(1, {"good"}) + sync(2, 250) + verify(3, {"good"}) + sync(4, 60'000);
  std::memcpy(in.writable().data(), talk.data(), talk.size());
  in.commit(talk.size());
  EXPECT_EQ(conversation.answer(in, out, context_, scratch_), Conversation::Next::kSync);
  EXPECT_THAT(describe(text_of(out)), ElementsAre(StartsWith("1: valid")));
  EXPECT_EQ(conversation.sync().request_id, 2U);
  EXPECT_EQ(conversation.sync().timeout_ms, 250U);
  EXPECT_EQ(conversation.sync().sources, 0b101U);

  in_a_.upsert(row("17", "good", RowState::kRevoked));  // a change that the sync waits for
  out.clear();
  EXPECT_EQ(conversation.answer(in, out, context_, scratch_), Conversation::Next::kSync);
  EXPECT_THAT(describe(text_of(out)), ElementsAre(StartsWith("3: revoked")));
  EXPECT_EQ(conversation.sync().request_id, 4U);
  out.clear();
  EXPECT_EQ(conversation.answer(in, out, context_, scratch_), Conversation::Next::kRead);
  EXPECT_EQ(out.size(), 0U);
}

// The number of equal requests answered in one turn among others. For every kind of request, a
// turn ends after some ten microseconds of work.
TEST_F(ConversationTest, DoesNoMoreInATurnThanTheWorkItMayCost) {
  context_.turn_work = WorkerContext::kTurnWorkAmongOthers;
  context_.status_json = [](const Rights&) {
    return std::make_shared<const std::string>(3'000, 'x');
  };
  Rights few = everything();
  few.operations = operation(LATCHKEY_VERIFY);
  Rights silent = everything();
  silent.reasons = false;
  const std::string long_key(4000, 'k');
  VerifyTerms scoped;
  for (int i = 0; i < LATCHKEY_SCOPES_MAX; ++i) scoped.all_scopes.push_back(std::to_string(i));
  const auto in_a_turn = [this](const std::string& request, const Rights& rights) {
    std::string talk;
    std::size_t asked = 0;
    for (; talk.size() + request.size() <= LATCHKEY_REQUEST_BYTES_MAX && asked < 2000; ++asked) {
      talk += request;
    }
    FrameBuffer in(LATCHKEY_REQUEST_BYTES_MAX);
    std::memcpy(in.writable().data(), talk.data(), talk.size());
    in.commit(talk.size());
    Conversation conversation(rights);
    OutBuffer out;
    EXPECT_EQ(conversation.answer(in, out, context_, scratch_), Conversation::Next::kWrite);
    const std::size_t answered = describe(text_of(out)).size();
    EXPECT_LT(answered, asked);
    return answered;
  };
  EXPECT_EQ(in_a_turn(why(1, "revoked"), everything()), 1U);
  EXPECT_LE(in_a_turn(status(1), everything()), 2U);
  EXPECT_LE(in_a_turn(verify(1, {"good"}), everything()), 128U);
  EXPECT_LE(in_a_turn(verify(1, {"good"}, scoped), everything()), 32U);
  EXPECT_LE(in_a_turn(verify(1, {long_key}), everything()), 2U) << "three digests of 4000 bytes";
  EXPECT_LE(in_a_turn(verify(1, {"good"}, terms("no-such")), everything()), 128U);
  EXPECT_LE(in_a_turn(why(1, "good"), silent), 128U) << "refused";
  EXPECT_LE(in_a_turn(why(1, "good", terms("no-such")), everything()), 128U);
  EXPECT_LE(in_a_turn(status(1), few), 128U) << "refused";
  EXPECT_LE(in_a_turn(ping(1), everything()), 128U);
}

TEST_F(ConversationTest, SendsWhatItHasBeforeRepliesGrowTooMany) {
  context_.status_json = [](const Rights&) {
    return std::make_shared<const std::string>(100'000, 'x');
  };
  context_.turn_work = std::numeric_limits<std::size_t>::max();
  FrameBuffer in(LATCHKEY_REQUEST_BYTES_MAX);
  Conversation conversation(everything());
  std::string talk;
  for (std::uint64_t i = 0; i < 10; ++i) talk += status(i) + verify(i, {"good"});
  std::memcpy(in.writable().data(), talk.data(), talk.size());
  in.commit(talk.size());
  std::string replies;
  int writes = 0;
  for (auto next = Conversation::Next::kWrite; next != Conversation::Next::kRead;) {
    OutBuffer out;
    next = conversation.answer(in, out, context_, scratch_);
    EXPECT_LT(out.size(), Conversation::kOutBytesMax + 110'000);
    if (next != Conversation::Next::kRead) {
      EXPECT_EQ(next, Conversation::Next::kWrite);
      EXPECT_GE(out.size(), Conversation::kOutBytesMax);
      ++writes;
    }
    replies += text_of(out);
    ASSERT_LT(writes, 20);
  }
  EXPECT_EQ(writes, 3);
  EXPECT_EQ(describe(replies).size(), 20U);
  for (std::size_t i = 0; i < 20; ++i) {
    EXPECT_THAT(describe(replies)[i], StartsWith(std::to_string(i / 2) + ": "));
  }
}

TEST_F(ConversationTest, AnswersEveryKeyOfTheLargestRepliesInOrder) {
  RecordFacts large = row("1", "large");
  const std::string metadata(4000, 'm');
  large.metadata = metadata;
  in_b_.upsert(large);
  VerifyTerms demanded;
  demanded.want_metadata = true;
  const std::vector<std::string_view> keys(LATCHKEY_BATCH_KEYS_MAX, "large");
  std::string talk;
  for (std::uint64_t i = 0; i < 30; ++i) talk += verify(i, keys, demanded);
  const auto lines = replies_to(talk);
  ASSERT_EQ(lines.size(), 30U);
  for (std::size_t i = 0; i < lines.size(); ++i) {
    EXPECT_THAT(lines[i], StartsWith(std::to_string(i) + ": valid source=b id=1 meta=mmm"));
    EXPECT_EQ(std::ranges::count(lines[i], ','), LATCHKEY_BATCH_KEYS_MAX - 1);
  }
}

// ---- secrets

TEST_F(ConversationTest, LeavesNoKeyInTheBuffer) {
  const std::string talks[] = {
      verify(1, {kSecret}),
      verify(1, {kSecret, kSecret}) + verify(2, {kSecret}) + ping(3),
      verify(1, {kSecret}) + sync(2, 1),
      verify(1, {kSecret}, terms("nowhere")) + ping(2),
      verify(1, {kSecret}) + frame(9, 9),
      why(1, kSecret) + ping(2),
      why(1, kSecret, terms("nowhere")),
      frame(LATCHKEY_WHY, 9, why(9, kSecret).substr(16) + "x"),          // refused
      frame(LATCHKEY_VERIFY, 9, verify(9, {kSecret}).substr(16) + "x"),  // refused
  };
  for (const std::string& talk : talks) {
    FrameBuffer in(LATCHKEY_REQUEST_BYTES_MAX);
    Conversation conversation(everything());
    OutBuffer out;
    const auto room = in.writable();
    std::memcpy(room.data(), talk.data(), talk.size());
    in.commit(talk.size());
    (void)conversation.answer(in, out, context_, scratch_);
    const std::string_view left(reinterpret_cast<const char*>(room.data()), talk.size());
    EXPECT_EQ(left.find(kSecret), std::string_view::npos);
    EXPECT_EQ(left.find(kSecret.substr(0, 8)), std::string_view::npos);
  }
}

TEST_F(ConversationTest, LeavesOnlyTheUnfinishedFrameInTheBuffer) {
  FrameBuffer in(LATCHKEY_REQUEST_BYTES_MAX);
  Conversation conversation(everything());
  OutBuffer out;
  const auto room = in.writable();
  const std::string talk = verify(1, {kSecret}) + verify(2, {"x"}) + ping(3).substr(0, 10);
  std::memcpy(room.data(), talk.data(), talk.size());
  in.commit(talk.size());
  EXPECT_EQ(conversation.answer(in, out, context_, scratch_), Conversation::Next::kRead);
  const std::string_view left(reinterpret_cast<const char*>(room.data()), talk.size());
  EXPECT_EQ(left.substr(0, 10), ping(3).substr(0, 10));
  EXPECT_EQ(left.find_first_not_of('\0', 10), std::string_view::npos);
}

}  // namespace
}  // namespace latchkey
