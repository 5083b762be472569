// Turns of one connection: a sync holds later frames back, and a turn ends before it costs the
// other connections much time or memory.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <limits>

#include "tests/unit/support/conversation_fixture.h"
#include "tests/unit/support/helpers.h"

namespace latchkey {
namespace {

using test::ConversationTest;
using test::describe;
using test::everything;
using test::ping;
using test::row;
using test::status;
using test::sync;
using test::terms;
using test::text_of;
using test::verify;
using test::why;
using testing::ElementsAre;
using testing::StartsWith;

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
  EXPECT_EQ(turn(conversation, in, out), Conversation::Next::kSync);
  EXPECT_THAT(describe(text_of(out)), ElementsAre(StartsWith("1: valid")));
  EXPECT_EQ(conversation.sync().request_id, 2U);
  EXPECT_EQ(conversation.sync().timeout_ms, 250U);
  EXPECT_EQ(conversation.sync().sources, 0b101U);

  in_a_.upsert(row("17", "good", RowState::kRevoked));  // a change that the sync waits for
  out.clear();
  EXPECT_EQ(turn(conversation, in, out), Conversation::Next::kSync);
  EXPECT_THAT(describe(text_of(out)), ElementsAre(StartsWith("3: revoked")));
  EXPECT_EQ(conversation.sync().request_id, 4U);
  out.clear();
  EXPECT_EQ(turn(conversation, in, out), Conversation::Next::kRead);
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
    EXPECT_EQ(turn(conversation, in, out), Conversation::Next::kWrite);
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
    next = turn(conversation, in, out);
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

}  // namespace
}  // namespace latchkey
