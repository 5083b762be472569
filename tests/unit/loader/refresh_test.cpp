// The conversation of the refresh policy, from nothing to sources in step, and its new beginning
// after a failure at each step. Events and time in, actions out.
#include "loader/refresh.h"

#include <gtest/gtest.h>

#include "tests/unit/support/helpers.h"
#include "tests/unit/support/refresh_fixture.h"

namespace latchkey {
namespace {

using test::describe;
using test::first_conversation;
using test::Play;
using test::Script;
using test::without_audit;

TEST(RefreshScript, ConnectsListensProvesLoadsAndKeepsInStep) {
  Play play(2, without_audit());
  EXPECT_EQ(play.refresh.state(), Refresh::State::kConnecting);
  first_conversation().play(play);
  EXPECT_EQ(play.refresh.state(), Refresh::State::kLive);
  EXPECT_EQ(play.refresh.pending_ids(), 0U);
}

TEST(RefreshScript, NamesItsStates) {
  using State = Refresh::State;
  Play play(1, without_audit());
  EXPECT_EQ(play.said(), "connect");
  EXPECT_EQ(play.refresh.state(), State::kConnecting);
  play.refresh.listen_ready(play.now);
  EXPECT_EQ(play.refresh.state(), State::kConnecting) << "one of two";
  play.refresh.work_ready(play.now);
  EXPECT_EQ(play.refresh.state(), State::kListening);
  EXPECT_EQ(play.said(), "barrier 1");
  play.refresh.barrier_returned(1);
  EXPECT_EQ(play.refresh.state(), State::kLoading);
  EXPECT_EQ(play.said(), "load 0");
  EXPECT_EQ(play.refresh.state(), State::kLoading);
  play.refresh.failed(play.now);
  EXPECT_EQ(play.refresh.state(), State::kConnecting) << "nothing was ever in step";
  play.reconnect();
  Script().asks("barrier 2").barrier_returns(2).asks("load 0").is_done().play(play);
  EXPECT_EQ(play.said(), "prove " + test::script_time(play.now));
  EXPECT_EQ(play.refresh.state(), State::kLive);
}

// ---- a failure at each step

// After a failure, the old conversation is abandoned; after a wait, all begins again.
void expect_full_recovery(Play& play, const std::vector<std::uint64_t>& syncs) {
  const RefreshSettings settings;
  const Refresh::Action first = play.next();
  const auto* wait = std::get_if<Refresh::Wait>(&first);
  ASSERT_NE(wait, nullptr) << describe(first);
  EXPECT_GE(wait->until_ns - play.now, settings.backoff_min_ns);
  EXPECT_LE(wait->until_ns - play.now, settings.backoff_max_ns);
  EXPECT_NE(play.refresh.state(), Refresh::State::kLive);
  EXPECT_EQ(play.refresh.pending_ids(), 0U) << "the load will see them";
  for (std::uint64_t old = 0; old < 9; ++old) play.refresh.barrier_returned(old);
  EXPECT_EQ(play.said(), describe(first)) << "what the old connection said counts no more";
  play.now = wait->until_ns - 1;
  EXPECT_EQ(play.said(), describe(first));
  play.now = wait->until_ns;
  EXPECT_EQ(play.said(), "connect");

  play.pass(1);
  play.refresh.work_ready(play.now);  // this time in the other order
  EXPECT_EQ(play.said(), "wait until ever");
  play.refresh.listen_ready(play.now);
  const std::int64_t sent = play.now;
  const Refresh::Action second = play.next();
  const auto* barrier = std::get_if<Refresh::SendBarrier>(&second);
  ASSERT_NE(barrier, nullptr) << describe(second);
  for (std::uint64_t old = 0; old < barrier->number; ++old) play.refresh.barrier_returned(old);
  EXPECT_TRUE(std::holds_alternative<Refresh::Wait>(play.next())) << "no load before the barrier";
  play.refresh.barrier_returned(barrier->number);
  std::size_t proven = 0;
  for (const char* load : {"load 0", "load 1"}) {
    if (proven > 0) {
      EXPECT_EQ(play.said(), describe(Refresh::Prove{sent, {0}, {}})) << "no sync before all are";
      EXPECT_NE(play.refresh.state(), Refresh::State::kLive) << "before all are";
    }
    ASSERT_TRUE(play.said().starts_with("load")) << load;
    EXPECT_TRUE(std::holds_alternative<Refresh::Wait>(play.next())) << "nothing proven meanwhile";
    play.pass(1);
    play.refresh.work_done(play.now);
    ++proven;
  }
  EXPECT_EQ(play.said(), describe(Refresh::Prove{sent, {1}, syncs}));
  EXPECT_TRUE(std::holds_alternative<Refresh::Wait>(play.next()));
  EXPECT_EQ(play.refresh.state(), Refresh::State::kLive);
}

TEST(RefreshScript, BeginsAnewAfterAFailureAtAnyStep) {
  const Script script = first_conversation();
  bool tried = false;
  bool asked = false;
  for (std::size_t step = 0; step <= script.size(); ++step) {
    if (step > 0) {
      tried = tried || script.name(step - 1) == "connect";
      asked = (asked || script.name(step - 1) == "sync") &&
              script.name(step - 1) != "prove 1003 sync 5";
    }
    if (!tried) continue;  // no step could fail
    SCOPED_TRACE("failing after step " + std::to_string(step) + ", " + script.name(step - 1));
    Play play(2, without_audit(), test::seed() + step);
    script.play(play, step);
    play.refresh.failed(play.now);
    expect_full_recovery(play,
                         asked ? std::vector<std::uint64_t>{5} : std::vector<std::uint64_t>{});
    if (HasFatalFailure()) return;
  }
}

TEST(RefreshScript, BeginsAnewAfterAFailureOfTheRecovery) {
  const Script script = first_conversation();
  Play play(2, without_audit());
  script.play(play);
  play.refresh.failed(play.now);
  play.reconnect();
  Script().asks("barrier 4").barrier_returns(4).asks("load 0").is_done().play(play);
  EXPECT_TRUE(play.said().starts_with("prove"));
  Script().asks("load 1").play(play);
  EXPECT_EQ(play.refresh.state(), Refresh::State::kLoading);
  play.refresh.failed(play.now);
  EXPECT_EQ(play.refresh.state(), Refresh::State::kLost) << "it was in step before";
  expect_full_recovery(play, {});
}

}  // namespace
}  // namespace latchkey
