// Requests and replies of one connection: their order, batches, pieces of a stream, refusals; and
// no key left in the buffer.
#include "daemon/unix/conversation.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/support/conversation_fixture.h"
#include "tests/unit/support/helpers.h"

namespace latchkey {
namespace {

using test::bare_terms;
using test::ConversationTest;
using test::describe;
using test::everything;
using test::frame;
using test::kSecret;
using test::ping;
using test::status;
using test::sync;
using test::terms;
using test::verify;
using test::why;
using test::with_byte;
using testing::ElementsAre;
using testing::StartsWith;

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
    (void)turn(conversation, in, out);
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
  EXPECT_EQ(turn(conversation, in, out), Conversation::Next::kRead);
  const std::string_view left(reinterpret_cast<const char*>(room.data()), talk.size());
  EXPECT_EQ(left.substr(0, 10), ping(3).substr(0, 10));
  EXPECT_EQ(left.find_first_not_of('\0', 10), std::string_view::npos);
}

}  // namespace
}  // namespace latchkey
