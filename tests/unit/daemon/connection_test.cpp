// A connection of the binary protocol over a socket pair: turns, deadlines, replies that are not
// taken, refusal, drain. The host is a fake that serves turns when the test says so.
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

// ---- requests and turns

TEST_F(ConnectionTest, AnswersRequestsInTheirOrder) {
  start();
  const auto replies = ask(ping(7) + verify(8, "good") + status(9) + verify(10, "bad") + ping(11));
  EXPECT_THAT(ids(replies), ElementsAre(7, 8, 9, 10, 11));
  ASSERT_EQ(replies.size(), 5U);
  EXPECT_EQ(replies[0].type, LATCHKEY_PONG);
  EXPECT_EQ(verdict_in(replies[1]), LATCHKEY_VALID);
  EXPECT_EQ(replies[2].body, "{}");
  EXPECT_EQ(verdict_in(replies[3]), LATCHKEY_UNKNOWN);
  EXPECT_EQ(stats_.requests.get(), 5U);
  EXPECT_FALSE(is_closed());
  EXPECT_THAT(ids(ask(ping(12))), ElementsAre(12));
}

TEST_F(ConnectionTest, ReadsAndAnswersInItsTurnOnly) {
  start();
  EXPECT_TRUE(caller_->send(ping(1)));
  notice();
  EXPECT_EQ(host_.asked_, 1);
  notice();
  EXPECT_EQ(stats_.requests.get(), 0U);
  EXPECT_THAT(caller_->replies(), IsEmpty());
  connection_->check_deadline(boot_ns() + 1000 * kIdle, kIdle);
  EXPECT_FALSE(is_closed()) << "the daemon makes it wait";
  EXPECT_TRUE(host_.serve());
  EXPECT_THAT(ids(caller_->replies()), ElementsAre(1));
  notice();
  EXPECT_EQ(host_.asked_, 1) << "nothing is left";
}

TEST_F(ConnectionTest, AnswersAsMuchInATurnAsItsHostAllows) {
  start();
  host_.context_.turn_work = 1;
  EXPECT_TRUE(caller_->send(ping(1) + ping(2) + ping(3)));
  for (std::uint64_t id = 1; id <= 3; ++id) {
    notice();
    EXPECT_TRUE(host_.serve());
    EXPECT_THAT(ids(caller_->replies()), ElementsAre(id));
  }
  settle();
  EXPECT_EQ(host_.asked_, 4) << "the last turn finds nothing";
}

TEST_F(ConnectionTest, AnswersAnyPiecesAsTheWhole) {
  test::Random random;
  start();
  for (int round = 0; round < 50; ++round) {
    std::string bytes;
    std::vector<std::uint64_t> expected;
    const std::size_t count = 1 + random.below(30);
    for (std::uint64_t id = 0; id < count; ++id) {
      const std::string requests[] = {ping(id), verify(id, "good"), status(id),
                                      verify(id, std::string(1 + random.below(4096), 'k'))};
      bytes += requests[random.below(4)];
      expected.push_back(id);
    }
    host_.context_.turn_work = 1 + random.below(20);
    std::vector<Reply> replies;
    for (std::size_t at = 0; at < bytes.size();) {
      const std::size_t piece = std::min(bytes.size() - at, 1 + random.below(9000));
      ASSERT_TRUE(caller_->send(std::string_view(bytes).substr(at, piece)));
      at += piece;
      if (random.below(3) == 0) continue;
      notice();
      if (random.below(2) == 0) host_.serve();
      for (Reply& reply : caller_->replies()) replies.push_back(std::move(reply));
    }
    settle();
    for (Reply& reply : caller_->replies()) replies.push_back(std::move(reply));
    ASSERT_EQ(ids(replies), expected);
  }
  EXPECT_FALSE(is_closed());
}

TEST_F(ConnectionTest, CountsKeysThatItsCallerWasToldToBeUnknown) {
  start();
  ask(verify(1, "bad") + verify(2, "worse") + verify(3, "good"));
  EXPECT_EQ(host_.in_vain_, 2U);
  ask(ping(4));
  EXPECT_EQ(host_.in_vain_, 2U);
}

TEST_F(ConnectionTest, MeasuresEachAnswerOnce) {
  start();
  const auto count = [&] {
    std::uint64_t sum = 0;
    for (const Counter& bucket : stats_.answered_in.buckets) sum += bucket.get();
    return sum;
  };
  EXPECT_EQ(count(), 0U);
  ask(ping(1) + ping(2));
  EXPECT_EQ(count(), 1U) << "from the arrival until all of it is answered";
  ask(ping(3));
  EXPECT_EQ(count(), 2U);
}

TEST_F(ConnectionTest, RefusesBytesThatAreNoRequestAndEnds) {
  start();
  const auto replies = ask(ping(1) + std::string("GET / HTTP/1.1\r\n\r\n"));
  ASSERT_EQ(replies.size(), 2U);
  EXPECT_EQ(replies[0].id, 1U);
  EXPECT_EQ(error_in(replies[1]), LATCHKEY_BAD_VERSION);
  EXPECT_TRUE(caller_->at_end());
  EXPECT_EQ(stats_.protocol_errors.get(), 1U);
}

// ---- the caller ends it

TEST_F(ConnectionTest, ClosesWhenItsCallerHangsUp) {
  start();
  caller_->hang_up();
  settle();
  EXPECT_EQ(host_.closed_, 1);
  connection_->close();
  EXPECT_EQ(host_.closed_, 1) << "once";
}

TEST_F(ConnectionTest, AnswersAllRequestsOfACallerThatEndsItsHalf) {
  start();
  EXPECT_TRUE(caller_->send(ping(1) + ping(2)));
  caller_->end_requests();
  settle();
  EXPECT_THAT(ids(caller_->replies()), ElementsAre(1, 2));
  EXPECT_TRUE(caller_->at_end());
  EXPECT_EQ(host_.closed_, 1);
}

// The kernel reports each change once, so neither bytes nor the end may be forgotten, whatever the
// connection is doing when they come.
TEST_F(ConnectionTest, AnswersAllThatCameBeforeTheEndWheneverItIsNoticed) {
  test::Random random;
  for (int round = 0; round < 200; ++round) {
    connect();
    start();
    host_.context_.turn_work = 1 + random.below(4);
    std::vector<std::uint64_t> expected;
    for (std::uint64_t id = 1 + random.below(6); id > 0; --id) {
      EXPECT_TRUE(caller_->send(random.below(2) == 0 ? ping(id) : verify(id, "good")));
      expected.push_back(id);
      if (random.below(2) == 0) notice();
      if (random.below(2) == 0) host_.serve();
    }
    if (random.below(2) == 0) notice();
    caller_->end_requests();
    if (random.below(2) == 0) notice();
    if (random.below(2) == 0) host_.serve();
    settle();
    EXPECT_EQ(ids(caller_->replies()), expected);
    EXPECT_TRUE(caller_->at_end());
    EXPECT_EQ(host_.closed_, 1);
  }
}

TEST_F(ConnectionTest, ReadsOnWhereItsBufferWasTooSmallForAllThatCame) {
  start();
  const std::string key(4096, 'k');
  std::string bytes;
  for (std::uint64_t id = 1; id <= 40; ++id) bytes += verify(id, key);
  EXPECT_GT(bytes.size(), std::size_t{2} * LATCHKEY_REQUEST_BYTES_MAX);
  EXPECT_EQ(ask(bytes).size(), 40U);
}

// ---- deadlines

TEST_F(ConnectionTest, ClosesIdleConnections) {
  const std::int64_t before_ns = boot_ns();
  start();
  const std::int64_t after_ns = boot_ns();
  connection_->check_deadline(before_ns + kIdle - 1, kIdle);
  EXPECT_FALSE(is_closed());
  connection_->check_deadline(after_ns + kIdle, kIdle);
  EXPECT_TRUE(is_closed());
  EXPECT_EQ(stats_.closed_idle.get(), 1U);
  EXPECT_EQ(stats_.closed_stalled.get(), 0U);
  caller_->replies();
  EXPECT_TRUE(caller_->at_end());
}

TEST_F(ConnectionTest, CountsIdlenessFromTheLastReply) {
  start();
  const std::int64_t before_ns = boot_ns();
  ask(ping(1));
  connection_->check_deadline(before_ns + kIdle - 1, kIdle);
  EXPECT_FALSE(is_closed());
  connection_->check_deadline(boot_ns() + kIdle, kIdle);
  EXPECT_TRUE(is_closed());
}

TEST_F(ConnectionTest, GivesAFrameItsTimeFromItsFirstByteOn) {
  start();
  const std::string request = ping(1);
  const std::int64_t before_ns = boot_ns();
  EXPECT_THAT(ask(request.substr(0, 5)), IsEmpty());
  const std::int64_t begun_ns = boot_ns();
  EXPECT_THAT(ask(request.substr(5, 1)), IsEmpty()) << "another byte buys no time";
  connection_->check_deadline(before_ns + kStall - 1, 1);
  EXPECT_FALSE(is_closed()) << "a frame under way is not idle";
  connection_->check_deadline(begun_ns + kStall, kIdle);
  EXPECT_TRUE(is_closed());
  EXPECT_EQ(stats_.closed_stalled.get(), 1U);
  EXPECT_EQ(stats_.closed_idle.get(), 0U);
}

TEST_F(ConnectionTest, ForgetsTheDeadlineOfAFrameThatIsComplete) {
  start();
  const std::string request = ping(1);
  ask(request.substr(0, 5));
  EXPECT_THAT(ids(ask(request.substr(5))), ElementsAre(1));
  connection_->check_deadline(boot_ns() + 2 * kStall, kIdle);
  EXPECT_FALSE(is_closed());
}

TEST_F(ConnectionTest, GivesTheNextFrameATimeOfItsOwn) {
  start();
  const std::string first = ping(1), second = ping(2);
  ask(first.substr(0, 5));
  const std::int64_t before_ns = boot_ns();
  EXPECT_THAT(ids(ask(first.substr(5) + second.substr(0, 3))), ElementsAre(1));
  connection_->check_deadline(before_ns + kStall - 1, kIdle);
  EXPECT_FALSE(is_closed());
  connection_->check_deadline(boot_ns() + kStall, kIdle);
  EXPECT_TRUE(is_closed());
}

}  // namespace
}  // namespace latchkey::test
