// The board between a loader's thread and others: readiness, the latest error, the log.
#include "loader/postgres/status_board.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <spdlog/sinks/ostream_sink.h>
#include <spdlog/spdlog.h>

#include <chrono>
#include <memory>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

namespace latchkey {
namespace {

using namespace std::chrono_literals;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

constexpr std::int64_t kS = 1'000'000'000;  // ns
// Long enough that a test which waits for it has failed.
constexpr auto kForEver = 60s;

class StatusBoardTest : public testing::Test {
 protected:
  StatusBoardTest() : before_(spdlog::default_logger()) {
    auto logger = std::make_shared<spdlog::logger>(
        "test", std::make_shared<spdlog::sinks::ostream_sink_mt>(log_));
    logger->set_pattern("%l: %v");
    spdlog::set_default_logger(logger);
  }
  ~StatusBoardTest() override { spdlog::set_default_logger(before_); }
  StatusBoardTest(const StatusBoardTest&) = delete;
  StatusBoardTest& operator=(const StatusBoardTest&) = delete;

  // The lines of the log since the last call.
  std::vector<std::string> logged() {
    std::istringstream text(log_.str());
    log_.str("");
    std::vector<std::string> lines;
    for (std::string line; std::getline(text, line);) lines.push_back(line);
    return lines;
  }
  void fail(const std::string& why, std::int64_t now_ns) {
    board_.failed(why, ": advice", false, false, now_ns);
  }
  // The paragraph that says why the loader is not ready; "(ready)" if it is.
  std::string unready(bool first_attempt_only = false, std::chrono::milliseconds timeout = 0ms) {
    const auto why = board_.wait_ready(timeout, first_attempt_only);
    if (!why) return "(ready)";
    EXPECT_EQ(why->why.size(), 1U);
    return why->why.at(0).text;
  }

  std::ostringstream log_;
  std::shared_ptr<spdlog::logger> before_;
  StatusBoard board_{"main", 5 * kS};
};

// ---- readiness

TEST_F(StatusBoardTest, IsNotReadyAtFirst) {
  EXPECT_FALSE(board_.ready());
  const auto why = board_.wait_ready(0ms, false);
  ASSERT_TRUE(why);
  EXPECT_FALSE(why->final);
  EXPECT_THAT(unready(), testing::AllOf(HasSubstr("\"main\""), HasSubstr("start_timeout")));
  EXPECT_EQ(board_.status().database, "main");
  EXPECT_EQ(board_.status().state, Refresh::State::kConnecting);
  EXPECT_EQ(board_.status().since_boot_ns, 5 * kS);
}

TEST_F(StatusBoardTest, BecomesReadyOnceAndForAll) {
  EXPECT_TRUE(board_.set_ready());
  EXPECT_FALSE(board_.set_ready()) << "it was ready before";
  EXPECT_TRUE(board_.ready());
  EXPECT_EQ(unready(true, kForEver), "(ready)");
  fail("lost", 6 * kS);
  EXPECT_EQ(unready(true, kForEver), "(ready)") << "an error later on does not count";
}

TEST_F(StatusBoardTest, WakesAThreadThatWaits) {
  std::string result;
  std::thread waiting([&] { result = unready(false, kForEver); });
  EXPECT_TRUE(board_.set_ready());
  board_.notify();
  waiting.join();
  EXPECT_EQ(result, "(ready)");
}

TEST_F(StatusBoardTest, GivesUpAfterTheFirstRoundOnlyIfAskedTo) {
  board_.failed("one host refused", "", false, /*others=*/true, 6 * kS);
  EXPECT_EQ(board_.status().failures, 1U);
  EXPECT_EQ(board_.status().rounds_failed, 0U) << "other hosts have not been tried";
  fail("all hosts refused", 7 * kS);
  EXPECT_EQ(board_.status().failures, 2U);
  EXPECT_EQ(board_.status().rounds_failed, 1U);
  EXPECT_EQ(unready(true, kForEver), "database \"main\": all hosts refused: advice");
  EXPECT_EQ(unready(false, 0ms), "database \"main\": all hosts refused: advice")
      << "at the end of the time the latest reason is known";
}

TEST_F(StatusBoardTest, GivesUpAtOnceIfTryingAgainCannotHelp) {
  board_.failed("no such role", "", /*final=*/true, false, 6 * kS);
  fail("timeout", 7 * kS);
  EXPECT_EQ(unready(false, kForEver), "database \"main\": no such role")
      << "a passing error does not replace it";
  EXPECT_EQ(board_.status().last_error, "timeout");
  EXPECT_EQ(board_.status().last_error_boot_ns, 7 * kS);
}

TEST_F(StatusBoardTest, TellsTheReasonsOfTheLoader) {
  board_.set_unready({{{Lint::kTableMissing, 0, "t", "no table t"}}, true});
  const auto why = board_.wait_ready(kForEver, false);
  ASSERT_TRUE(why);
  EXPECT_TRUE(why->final);
  EXPECT_EQ(why->why.at(0).lint, Lint::kTableMissing);
  EXPECT_TRUE(board_.set_ready());
  EXPECT_EQ(unready(), "(ready)") << "the table has been created meanwhile";
}

TEST_F(StatusBoardTest, WaitsUntilNoSourceIsCompared) {
  EXPECT_TRUE(board_.wait_linted(0ms)) << "there are no sources";
  board_.update([](LoaderStatus& status) {
    status.sources.resize(2);
    status.sources[1].comparing = true;
  });
  EXPECT_FALSE(board_.wait_linted(0ms));
  bool linted = false;
  std::thread waiting([&] { linted = board_.wait_linted(kForEver); });
  board_.update([](LoaderStatus& status) { status.sources[1].comparing = false; });
  board_.notify();
  waiting.join();
  EXPECT_TRUE(linted);
}

// ---- states and troubles

TEST_F(StatusBoardTest, KeepsTheTimeOfAStateThatStays) {
  board_.set_state(Refresh::State::kLive, 6 * kS);
  board_.set_state(Refresh::State::kLive, 9 * kS);
  EXPECT_EQ(board_.status().state, Refresh::State::kLive);
  EXPECT_EQ(board_.status().since_boot_ns, 6 * kS);
  EXPECT_THAT(logged(), ElementsAre(HasSubstr("info: database \"main\": in step")));
  board_.set_state(Refresh::State::kLost, 10 * kS);
  EXPECT_EQ(board_.status().since_boot_ns, 10 * kS);
  EXPECT_THAT(logged(), IsEmpty());
}

TEST_F(StatusBoardTest, LogsTheReturnToLiveOnceAMinute) {
  for (int i = 0; i < 10; ++i) {
    board_.set_state(Refresh::State::kLive, (10 + i) * kS);
    board_.set_state(Refresh::State::kLost, (10 + i) * kS);
  }
  EXPECT_EQ(logged().size(), 1U);
  board_.set_state(Refresh::State::kLive, 71 * kS);
  EXPECT_THAT(logged(), ElementsAre(HasSubstr("9 more in the last minute")));
}

TEST_F(StatusBoardTest, TellsATroubleUntilItIsOver) {
  board_.set_trouble("the queue is full", true, 6 * kS);
  EXPECT_EQ(board_.status().trouble, "the queue is full");
  EXPECT_TRUE(board_.status().queue_in_the_way);
  EXPECT_THAT(logged(), ElementsAre(HasSubstr("warning: database \"main\": the queue is full")));
  board_.set_trouble("the queue is full still", true, 7 * kS);
  EXPECT_EQ(board_.status().trouble, "the queue is full still");
  EXPECT_THAT(logged(), IsEmpty()) << "the same trouble in other words";
  board_.set_trouble("", false, 8 * kS);
  EXPECT_EQ(board_.status().trouble, "");
  EXPECT_FALSE(board_.status().queue_in_the_way);
  board_.set_trouble("again", false, 9 * kS);
  EXPECT_THAT(logged(), IsEmpty()) << "within a minute";
  board_.set_trouble("", false, 10 * kS);
  board_.set_trouble("once more", false, 67 * kS);
  EXPECT_THAT(logged(), ElementsAre(HasSubstr("once more")));
}

// ---- errors in the log

TEST_F(StatusBoardTest, LogsAnErrorOnceHoweverOftenItIsTriedAgain) {
  for (int i = 0; i < 1000; ++i) fail("refused", i * kS);
  EXPECT_THAT(logged(), ElementsAre("error: database \"main\": refused"))
      << "the advice is for the start of the daemon";
  EXPECT_EQ(board_.status().failures, 1000U);
  EXPECT_EQ(board_.status().last_error_boot_ns, 999 * kS);
}

TEST_F(StatusBoardTest, LogsEachNewErrorAtOnce) {
  fail("refused", 1 * kS);
  fail("no route", 1 * kS);
  fail("refused", 1 * kS);
  EXPECT_EQ(logged().size(), 3U);
}

TEST_F(StatusBoardTest, LogsTheSameErrorOfALiveConnectionOnceAMinute) {
  for (int i = 0; i < 100; ++i) {
    board_.set_state(Refresh::State::kLive, i * kS);
    fail("terminated", i * kS);
    board_.set_state(Refresh::State::kLost, i * kS);
  }
  std::vector<std::string> errors = logged();
  std::erase_if(errors, [](const std::string& line) { return !line.starts_with("error"); });
  EXPECT_THAT(errors, ElementsAre(HasSubstr("terminated"),
                                  HasSubstr("terminated (and 59 more in the last minute)")));
}

}  // namespace
}  // namespace latchkey
