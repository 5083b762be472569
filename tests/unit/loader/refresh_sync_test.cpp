// Syncs: the refresh policy proves each by a barrier sent after it, and limits their barriers.
#include <gtest/gtest.h>

#include <algorithm>

#include "tests/unit/support/refresh_fixture.h"

namespace latchkey {
namespace {

using test::describe;
using test::Play;
using test::RefreshLive;
using test::Script;

TEST_F(RefreshLive, ProvesASyncOnlyByABarrierSentAfterIt) {
  Script script;
  script.passes(1000).asks("barrier 2").sync_wanted(1).sync_wanted(2).waits("6000");
  script.passes(1).barrier_returns(2).asks("barrier 3").asks("prove 1000").waits("6001");
  script.sync_wanted(3).barrier_returns(3).asks("prove 1001 sync 1 sync 2").waits("1011");
  script.passes(10).asks("barrier 4").barrier_returns(4).asks("prove 1011 sync 3").waits("2011");
  play(script);
}

// A caller that syncs in a loop, on any number of connections, costs the database one barrier in
// ten milliseconds; an occasional sync does not wait for it.
TEST_F(RefreshLive, SendsBarriersForSyncsAtLeastAGapApart) {
  Script script;
  script.passes(100).sync_wanted(1).asks("barrier 2").passes(1).barrier_returns(2);
  script.asks("prove 100 sync 1").sync_wanted(2).sync_wanted(3).waits("110");
  script.passes(8).sync_wanted(4).waits("110");
  script.passes(1).asks("barrier 3").barrier_returns(3).asks("prove 110 sync 2 sync 3 sync 4");
  script.passes(9).waits("1110").sync_wanted(5).waits("120");
  script.passes(1).asks("barrier 4").barrier_returns(4).asks("prove 120 sync 5");
  script.passes(10).sync_wanted(6).asks("barrier 5").barrier_returns(5).asks("prove 130 sync 6");
  play(script);
}

TEST_F(RefreshLive, LetsABarrierThatIsDueAnywayCarryASyncWithinTheGap) {
  Script script;
  script.passes(100).sync_wanted(1).asks("barrier 2").barrier_returns(2).asks("prove 100 sync 1");
  script.sync_wanted(2).waits("110").notified_all(0).asks("barrier 3").barrier_returns(3);
  script.asks("load 0").is_done().asks("prove 100 sync 2").waits("1100");
  play(script);
}

TEST_F(RefreshLive, CountsTheGapOfOneFloodTheSameForAThousandSyncs) {
  std::uint64_t sync = 0;
  int barriers = 0;
  for (int ms = 0; ms < 900; ++ms) {
    for (int i = 0; i < 64; ++i) play_.refresh.sync_wanted(++sync);
    Refresh::Action action = play_.next();
    while (!std::holds_alternative<Refresh::Wait>(action)) {
      if (const auto* barrier = std::get_if<Refresh::SendBarrier>(&action)) {
        ++barriers;
        play_.refresh.barrier_returned(barrier->number);
      }
      action = play_.next();
    }
    play_.pass(1);
  }
  EXPECT_EQ(barriers, 90);
}

TEST_F(RefreshLive, ForgetsAnAbandonedSyncWhereverItHasGot) {
  const auto abandons = [](std::uint64_t sync) {
    return [sync](Play& play) { play.refresh.sync_abandoned(sync); };
  };
  Script script;
  script.sync_wanted(1).happens("abandons", abandons(1)).waits("1000");  // before a barrier is sent
  script.sync_wanted(2).sync_wanted(3).asks("barrier 2").happens("abandons", abandons(2));
  script.notified(0, {"x"}).asks("reread 0: x").barrier_returns(2).passes(10).sync_wanted(4);
  script.asks("barrier 3").barrier_returns(3).happens("abandons", abandons(3)).is_done();
  script.asks("prove 10 sync 4").waits("1010");
  script.happens("abandons", abandons(77)).waits("1010");
  play(script);
}

TEST_F(RefreshLive, CarriesASyncOverAFailureInEachPlaceItCanStand) {
  play(Script().sync_wanted(1).asks("barrier 2").notified(0, {"x"}).asks("reread 0: x"));
  play(Script().barrier_returns(2).passes(10).sync_wanted(2).asks("barrier 3"));
  play(Script().sync_wanted(3).fails());
  play_.refresh.sync_wanted(4);
  play_.reconnect();
  const auto sent = play_.now;
  play(Script().asks("barrier 4").barrier_returns(4).asks("load 0").is_done());
  const Refresh::Action action = play_.next();
  ASSERT_TRUE(std::holds_alternative<Refresh::Prove>(action)) << describe(action);
  auto [boot_ns, sources, syncs] = std::get<Refresh::Prove>(action);
  EXPECT_EQ(sources, std::vector<std::size_t>{0});
  std::ranges::sort(syncs);
  EXPECT_EQ(boot_ns, sent);
  EXPECT_EQ(syncs, (std::vector<std::uint64_t>{1, 2, 3, 4}));
}

}  // namespace
}  // namespace latchkey
