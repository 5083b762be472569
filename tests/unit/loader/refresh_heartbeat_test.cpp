// Heartbeats of the refresh policy: barriers at intervals, the proof by one that returns, and
// barriers that are delayed, refused or lost.
#include <gtest/gtest.h>

#include <algorithm>

#include "tests/unit/support/refresh_fixture.h"

namespace latchkey {
namespace {

using test::first_conversation;
using test::Play;
using test::RefreshLive;
using test::Script;
using test::without_audit;

// In step, with barrier 3 under way and its query answered.
Play with_barrier_held() {
  Play play(2, without_audit());
  first_conversation().play(play);
  const std::int64_t until_ns = std::get<Refresh::Wait>(play.next()).until_ns;
  play.now = std::max(play.now, until_ns);
  EXPECT_TRUE(play.said().starts_with("barrier"));
  play.refresh.barrier_held();
  return play;
}

TEST(RefreshBarrier, IsNotGivenUpWhileItsNonceWaitsForAConnection) {
  const RefreshSettings settings;
  Play play = with_barrier_held();
  play.now += 10 * settings.barrier_deadline_ns;
  EXPECT_EQ(play.said(), "wait until ever");
  play.refresh.barrier_went(play.now);
  play.now += settings.barrier_deadline_ns - 1;
  EXPECT_TRUE(play.said().starts_with("wait"));
  play.now += 1;
  EXPECT_EQ(play.said(), "disconnect") << "now it is lost";
}

TEST(RefreshBarrier, ThatIsRefusedProvesNothingAndIsTriedAgainInItsTime) {
  const RefreshSettings settings;
  Play play = with_barrier_held();
  play.refresh.barrier_went(play.now);
  play.refresh.sync_wanted(77);
  const std::int64_t refused_ns = play.now;
  play.refresh.barrier_refused(play.now);
  EXPECT_EQ(play.refresh.state(), Refresh::State::kLive);
  const auto wait = std::get<Refresh::Wait>(play.next());
  EXPECT_EQ(wait.until_ns, refused_ns + settings.heartbeat_ns) << "nor sooner for a sync";
  play.now = wait.until_ns;
  const auto next = std::get<Refresh::SendBarrier>(play.next());
  play.refresh.barrier_returned(next.number);
  const std::string proof = play.said();
  EXPECT_TRUE(proof.starts_with("prove")) << proof;
  EXPECT_TRUE(proof.ends_with(" sync 77")) << "not forgotten: " << proof;
}

TEST_F(RefreshLive, SendsAHeartbeatEachInterval) {
  Script script;
  script.waits("1000").passes(999).waits("1000").passes(1).asks("barrier 2").waits("6000");
  script.passes(700).barrier_returns(2).asks("prove 1000").waits("2000");
  script.passes(300).asks("barrier 3").passes(1500).waits("7000");  // one at a time
  script.barrier_returns(3).asks("barrier 4").asks("prove 2000");   // overdue: at once
  play(script);
}

TEST_F(RefreshLive, GivesUpAConnectionWhoseHeartbeatDoesNotComeBack) {
  Script script;
  script.passes(1000).asks("barrier 2").passes(4999).waits("6000");
  script.passes(1).asks("disconnect").fails();
  play(script);
  EXPECT_EQ(play_.refresh.state(), Refresh::State::kLost);
  EXPECT_TRUE(std::holds_alternative<Refresh::Wait>(play_.next()));
}

TEST_F(RefreshLive, TakesNoProofFromAStaleOrForeignBarrier) {
  Script script;
  script.passes(1000).asks("barrier 2").barrier_returns(1).barrier_returns(3).barrier_returns(0);
  script.waits("6000").barrier_returns(2).asks("prove 1000").waits("2000");
  script.barrier_returns(2).waits("2000");  // not requested
  play(script);
}

TEST_F(RefreshLive, ProvesOnlyWhenAllThatCameBeforeTheBarrierIsApplied) {
  Script script;
  script.passes(1000).asks("barrier 2").notified(0, {"a"}).asks("reread 0: a");
  script.notified(0, {"b"}).barrier_returns(2).waits("2000");
  script.is_done().asks("reread 0: b").waits("2000").is_done().asks("prove 1000").waits("2000");
  play(script);
}

TEST_F(RefreshLive, DoesNotLetLaterNotificationsHoldAProofBack) {
  Script script;
  script.passes(1000).asks("barrier 2").notified(0, {"a"}).asks("reread 0: a").barrier_returns(2);
  for (int i = 0; i < 5; ++i) script.notified(0, {"later " + std::to_string(i)});
  script.is_done().asks("prove 1000").asks("reread 0: later 0 later 1 later 2 later 3 later 4");
  play(script);
}

TEST_F(RefreshLive, NotificationOfNothingNeedsNoWork) {
  play(Script().notified(0, {}).waits("1000"));
  play(Script().passes(1000).asks("barrier 2").barrier_returns(2).asks("prove 1000"));
}

}  // namespace
}  // namespace latchkey
