// Replies that are not taken, refusals, draining, syncs: the ways in which a connection waits and
// ends.
#include "daemon/unix/connection.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/wire_names.h"
#include "tests/reference/client_codec.h"
#include "tests/unit/support/connection_fixture.h"
#include "tests/unit/support/helpers.h"
#include "tests/unit/support/verifier_fixture.h"

namespace latchkey::test {
namespace {

// ---- replies that are not taken

TEST_F(ConnectionTest, SendsALargeReplyAsItsCallerTakesIt) {
  start();
  fill(1);
  EXPECT_GE(host_.admission_.waiting_bytes(), status_.size());
  EXPECT_FALSE(host_.admission_.callers().empty());
  EXPECT_TRUE(caller_->send(ping(2)));
  const int asked = host_.asked_;
  settle();
  EXPECT_EQ(host_.asked_, asked) << "it reads no more until the reply is taken";
  EXPECT_EQ(stats_.requests.get(), 1U);
  std::vector<Reply> replies;
  for (int i = 0; i < 100 && replies.size() < 2; ++i) {
    for (Reply& reply : caller_->replies()) replies.push_back(std::move(reply));
    settle();
  }
  EXPECT_THAT(ids(replies), ElementsAre(1, 2));
  EXPECT_EQ(replies.at(0).body, status_);
  EXPECT_EQ(host_.admission_.waiting_bytes(), 0U);
  EXPECT_FALSE(is_closed());
}

TEST_F(ConnectionTest, EndsAtTheDeadlineOfRepliesThatAreNotTaken) {
  start();
  const std::int64_t before_ns = boot_ns();
  fill(1);
  const std::int64_t begun_ns = boot_ns();
  EXPECT_GT(caller_->take(200'000), 0U) << "to take a little buys no time";
  settle();
  connection_->check_deadline(before_ns + kStall - 1, 1);
  EXPECT_FALSE(is_closed());
  EXPECT_GT(host_.admission_.waiting_bytes(), 0U);
  connection_->check_deadline(begun_ns + kStall, kIdle);
  EXPECT_TRUE(is_closed());
  EXPECT_EQ(stats_.closed_stalled.get(), 1U);
  EXPECT_EQ(host_.admission_.waiting_bytes(), 0U) << "Admission has its bytes back";
}

TEST_F(ConnectionTest, GivesTheNextReplyATimeOfItsOwn) {
  start();
  fill(1);
  while (caller_->take(65536) > 0) settle();
  EXPECT_EQ(host_.admission_.waiting_bytes(), 0U);
  const std::int64_t before_ns = boot_ns();
  fill(2);
  connection_->check_deadline(before_ns + kStall - 1, kIdle);
  EXPECT_FALSE(is_closed());
}

TEST_F(ConnectionTest, ClosesACallerThatMayNotLetSoMuchWait) {
  host_.limits_.reply_memory = 1000;
  host_.admission_.set_limits(host_.limits_);
  start();
  fill(1);
  EXPECT_TRUE(is_closed());
  EXPECT_EQ(stats_.closed_hoarding.get(), 1U);
  EXPECT_EQ(host_.admission_.waiting_bytes(), 0U);
}

TEST_F(ConnectionTest, GivesBackItsBytesWhenItsCallerHangsUp) {
  start();
  fill(1);
  EXPECT_GT(host_.admission_.waiting_bytes(), 0U);
  caller_->hang_up();
  settle();
  EXPECT_TRUE(is_closed());
  EXPECT_EQ(host_.admission_.waiting_bytes(), 0U);
}

// ---- refusal

TEST_F(ConnectionTest, SaysWhyItRefusesAndCloses) {
  connection_->refuse(LATCHKEY_NOT_ALLOWED);
  const auto replies = caller_->replies();
  ASSERT_EQ(replies.size(), 1U);
  EXPECT_EQ(error_in(replies[0]), LATCHKEY_NOT_ALLOWED);
  EXPECT_EQ(replies[0].id, 0U);
  EXPECT_TRUE(caller_->at_end());
  EXPECT_FALSE(is_closed()) << "an unread request would discard the error";
  caller_->hang_up();
  settle();
  EXPECT_TRUE(is_closed());
}

TEST_F(ConnectionTest, AnswersNoRequestAfterARefusal) {
  EXPECT_TRUE(caller_->send(verify(1, "good")));
  connection_->refuse(LATCHKEY_NOT_ALLOWED);
  settle();
  EXPECT_TRUE(caller_->send(ping(2)));
  settle();
  EXPECT_EQ(caller_->replies().size(), 1U) << "the refusal";
  EXPECT_EQ(stats_.requests.get(), 0U);
  EXPECT_FALSE(is_closed());
}

TEST_F(ConnectionTest, LingersForASecondAtMost) {
  const std::int64_t before_ns = boot_ns();
  connection_->refuse(LATCHKEY_OVERLOADED);
  const std::int64_t after_ns = boot_ns();
  EXPECT_TRUE(caller_->send(ping(1)));
  settle();
  connection_->check_deadline(before_ns + kS - 1, kIdle);
  EXPECT_FALSE(is_closed());
  connection_->check_deadline(after_ns + kS, kIdle);
  EXPECT_TRUE(is_closed()) << "requests buy no time";
  EXPECT_EQ(stats_.closed_stalled.get(), 0U) << "it has had its refusal";
}

// ---- drain

TEST_F(ConnectionTest, ClosesAnIdleConnectionWhenDrained) {
  start();
  connection_->drain();
  settle();
  EXPECT_TRUE(is_closed());
}

TEST_F(ConnectionTest, AnswersRequestsThatHaveArrivedThenCloses) {
  start();
  EXPECT_TRUE(caller_->send(ping(1) + verify(2, "good")));
  connection_->drain();
  settle();
  EXPECT_THAT(ids(caller_->replies()), ElementsAre(1, 2));
  EXPECT_TRUE(caller_->at_end());
  EXPECT_TRUE(is_closed());
}

TEST_F(ConnectionTest, AnswersRequestsThatWaitForATurnThenCloses) {
  start();
  host_.context_.turn_work = 1;
  EXPECT_TRUE(caller_->send(ping(1) + ping(2) + ping(3)));
  notice();
  EXPECT_TRUE(host_.serve());
  connection_->drain();
  settle();
  EXPECT_THAT(ids(caller_->replies()), ElementsAre(1, 2, 3));
  EXPECT_TRUE(is_closed());
}

TEST_F(ConnectionTest, MakesWayForOthersWhileItDrains) {
  start();
  EXPECT_TRUE(caller_->send(ping(1)));
  connection_->drain();
  notice();
  const int asked = host_.asked_;
  for (std::uint64_t id = 2; id < 10; ++id) {
    EXPECT_TRUE(caller_->send(ping(id)));
    EXPECT_TRUE(host_.serve());
    EXPECT_THAT(caller_->replies(), testing::SizeIs(testing::Ge(1U)));
    EXPECT_EQ(host_.asked_, asked + static_cast<int>(id) - 1) << "each needs another turn";
  }
}

TEST_F(ConnectionTest, GivesUpHalfAFrameWhenDrained) {
  start();
  ask(ping(1).substr(0, 5));
  connection_->drain();
  settle();
  EXPECT_TRUE(is_closed());
}

TEST_F(ConnectionTest, FinishesALargeReplyWhenDrained) {
  start();
  fill(1);
  connection_->drain();
  settle();
  EXPECT_FALSE(is_closed());
  std::vector<Reply> replies;
  for (int i = 0; i < 100 && !is_closed(); ++i) {
    for (Reply& reply : caller_->replies()) replies.push_back(std::move(reply));
    settle();
  }
  for (Reply& reply : caller_->replies()) replies.push_back(std::move(reply));
  EXPECT_THAT(ids(replies), ElementsAre(1));
  EXPECT_EQ(replies.at(0).body, status_);
  EXPECT_TRUE(is_closed());
}

// ---- sync

TEST_F(ConnectionTest, AnswersASyncWhenItIsInForce) {
  start();
  EXPECT_THAT(ids(ask(ping(1) + sync(2, 1500) + ping(3))), ElementsAre(1));
  EXPECT_THAT(host_.syncs_, ElementsAre(Pair(0b111U, std::chrono::milliseconds(1500))));
  connection_->check_deadline(boot_ns() + 2 * kStall, 1);
  EXPECT_FALSE(is_closed()) << "its own timeout counts";
  host_.done_(true);
  settle();
  const auto replies = caller_->replies();
  EXPECT_THAT(ids(replies), ElementsAre(2, 3)) << "the requests behind it wait for it";
  EXPECT_EQ(replies.at(0).type, LATCHKEY_SYNCED);
}

TEST_F(ConnectionTest, SaysThatASyncTimedOut) {
  start();
  EXPECT_THAT(ask(sync(2, 1500)), IsEmpty());
  host_.done_(false);
  settle();
  const auto replies = caller_->replies();
  ASSERT_EQ(replies.size(), 1U);
  EXPECT_EQ(replies[0].id, 2U);
  EXPECT_EQ(error_in(replies[0]), LATCHKEY_TIMED_OUT);
  EXPECT_THAT(ids(ask(ping(3))), ElementsAre(3));
}

TEST_F(ConnectionTest, IgnoresASyncThatEndsAfterItsConnection) {
  start();
  ask(sync(2, 1500));
  connection_->close();
  host_.done_(true);
  settle();
  EXPECT_THAT(caller_->replies(), IsEmpty());
  EXPECT_EQ(host_.closed_, 1);
}

TEST_F(ConnectionTest, EndsASyncWhoseHostNeverAnswers) {
  start();
  ask(sync(2, 1500));
  connection_->check_deadline(boot_ns() + 2 * LATCHKEY_SYNC_TIMEOUT_MS_MAX * kMs, kIdle);
  EXPECT_TRUE(is_closed());
}

// ---- rules that change

TEST_F(ConnectionTest, FollowsTheRules) {
  const std::vector<std::string> sources = {"a", "b", "c"};
  AllowOptions rule;
  rule.uid = kUid;
  const auto apply = [&] { connection_->apply(CallerRules({&rule, 1}, sources, 1)); };
  start();
  EXPECT_EQ(verdict_in(ask(verify(1, "good")).at(0)), LATCHKEY_VALID);
  rule.sources = {"b"};
  apply();
  EXPECT_EQ(verdict_in(ask(verify(2, "good")).at(0)), LATCHKEY_UNKNOWN);
  rule.operations = {"status"};
  apply();
  EXPECT_EQ(error_in(ask(verify(3, "good")).at(0)), LATCHKEY_OPERATION_NOT_ALLOWED);
  EXPECT_FALSE(is_closed());
  rule.uid = kUid + 1;
  apply();
  EXPECT_TRUE(is_closed());
}

TEST_F(ConnectionTest, IsSilentOnceClosed) {
  start();
  EXPECT_TRUE(caller_->send(ping(1)));
  notice();
  connection_->close();
  settle();
  EXPECT_THAT(caller_->replies(), IsEmpty());
  connection_->check_deadline(boot_ns() + 1000 * kIdle, kIdle);
  EXPECT_EQ(host_.closed_, 1);
  EXPECT_EQ(stats_.closed_idle.get() + stats_.closed_stalled.get(), 0U);
}

}  // namespace
}  // namespace latchkey::test
