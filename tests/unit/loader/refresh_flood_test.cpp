// Floods of notifications, which any role can forge: they cost reloads, never the freshness, and
// never the freshness of another source.
#include <gtest/gtest.h>

#include "tests/unit/support/refresh_fixture.h"

namespace latchkey {
namespace {

using test::count_of;
using test::describe;
using test::kScriptMs;
using test::Play;
using test::RefreshLive;
using test::run;
using test::Script;
using test::without_audit;

TEST_F(RefreshLive, LimitsTheRateOfReloadsUnderAFloodAndDropsNone) {
  const auto actions = run(play_, 20'000, [&] { play_.refresh.notified_all(0); });
  EXPECT_GE(count_of<Refresh::Load>(actions), 18U);
  EXPECT_LE(count_of<Refresh::Load>(actions), 21U);
  EXPECT_GE(count_of<Refresh::Prove>(actions), 18U) << "a flood must not take the freshness away";
  const auto after = run(play_, 1'500, [] {});
  EXPECT_EQ(count_of<Refresh::Load>(after), 1U) << "the last one is served, too";
}

// Any role can forge these notifications, at any rate.
TEST(RefreshFlood, OfOneSourceNeverDelaysTheProofOfAnother) {
  RefreshSettings settings = without_audit();
  settings.reload_gap_ns = 60'000 * kScriptMs;  // the flooded source's reload waits long
  Play play(2, settings);
  play.reconnect();
  (void)run(play, 1, [] {});
  (void)run(play, 10, [&] { play.refresh.notified_all(0); });
  std::vector<std::int64_t> proven(2, play.now);
  for (int i = 0; i < 20'000; ++i) {
    for (const Refresh::Action& action : run(play, 1, [&] { play.refresh.notified_all(0); })) {
      const auto* prove = std::get_if<Refresh::Prove>(&action);
      if (prove == nullptr) continue;
      for (const std::size_t source : prove->sources) proven.at(source) = prove->boot_ns;
    }
    ASSERT_LE(play.now - proven[1], 1'010 * kScriptMs) << "after " << i << " ms";
  }
  EXPECT_GT(play.now - proven[0], 10'000 * kScriptMs) << "the flood is one";
}

// 100,000 ids of one source, and a single one of another.
TEST(RefreshFlood, LetsTheOthersHaveEverySecondQuery) {
  Play play(2, without_audit());
  play.reconnect();
  (void)run(play, 1, [] {});
  std::vector<std::string> many;
  for (int i = 0; i < 100'000; ++i) many.push_back(std::to_string(i));
  play.refresh.notified(0, many);
  ASSERT_TRUE(play.said().starts_with("reread 0"));
  play.refresh.notified(1, {"x"});
  play.refresh.work_done(play.now);
  Script().asks("reread 1: x").is_done().play(play);
  EXPECT_TRUE(play.said().starts_with("reread 0"));
}

// A load of one source may take long; the other one's proof needs no read.
TEST(RefreshFlood, ALoadOfOneSourceDoesNotHoldBackTheProofOfAnother) {
  Play play(2, without_audit());
  play.reconnect();
  (void)run(play, 1, [] {});
  play.refresh.reload(0, LoadReason::kAuditFound);
  EXPECT_EQ(play.said(), "load 0");
  play.pass(1'000);
  const std::string sent = test::script_time(play.now);
  const Refresh::Action action = play.next();
  ASSERT_TRUE(std::holds_alternative<Refresh::SendBarrier>(action)) << describe(action);
  play.refresh.sync_wanted(1);
  play.refresh.barrier_returned(std::get<Refresh::SendBarrier>(action).number);
  const Refresh::Action second = play.next();
  ASSERT_TRUE(std::holds_alternative<Refresh::SendBarrier>(second)) << describe(second);
  const Refresh::Action proof = play.next();
  ASSERT_EQ(describe(proof), "prove " + sent);
  EXPECT_EQ(std::get<Refresh::Prove>(proof).sources, std::vector<std::size_t>{1});
  play.refresh.barrier_returned(std::get<Refresh::SendBarrier>(second).number);
  EXPECT_EQ(play.said(), "prove " + sent) << "without the sync, which is of all sources";
  play.refresh.work_done(play.now);
  EXPECT_EQ(play.said(), "prove " + sent + " sync 1");
}

TEST(RefreshFlood, StaysFreshWhereSeveralSourcesAreFlooded) {
  Play play(2, without_audit());
  play.reconnect();
  (void)run(play, 1, [] {});
  (void)run(play, 500, [&] { play.refresh.notified_all(0); });
  // From here on the reloads are due at different times, so one is always deferred.
  const auto actions = run(play, 20'000, [&] {
    play.refresh.notified_all(0);
    play.refresh.notified_all(1);
  });
  EXPECT_LE(count_of<Refresh::Load>(actions), 42U);
  EXPECT_GE(count_of<Refresh::Prove>(actions), 10U)
      << "anybody on the database can forge these: they may cost reloads, never the freshness";
}

}  // namespace
}  // namespace latchkey
