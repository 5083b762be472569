// Audits in the refresh policy: their interval, their order, and their comparison.
#include <gtest/gtest.h>

#include <set>

#include "tests/unit/support/helpers.h"
#include "tests/unit/support/refresh_fixture.h"

namespace latchkey {
namespace {

using test::count_of;
using test::kScriptMs;
using test::Play;
using test::RefreshAuditLive;
using test::run;
using test::Script;
using test::without_audit;

TEST(RefreshAudit, ComesRoundWithJitter) {
  RefreshSettings settings;
  settings.audit_ns = 100'000 * kScriptMs;
  std::set<std::int64_t> times;
  for (std::uint64_t seed = 0; seed < 20; ++seed) {
    Play play(2, settings, test::seed() + seed);
    play.reconnect();
    std::vector<std::int64_t> audits;
    for (int second = 0; second < 350; ++second, play.pass(1000)) {
      const auto actions = run(play, 1, [] {});
      play.now -= kScriptMs;
      if (count_of<Refresh::Audit>(actions) == 0) continue;
      EXPECT_EQ(count_of<Refresh::Audit>(actions), 2U) << "all sources";
      EXPECT_EQ(count_of<Refresh::Compare>(actions), 2U);
      audits.push_back(second);
    }
    ASSERT_GE(audits.size(), 3U);
    for (std::size_t i = 1; i < audits.size(); ++i) {
      EXPECT_GE(audits[i] - audits[i - 1], 90);
      EXPECT_LE(audits[i] - audits[i - 1], 112);
    }
    times.insert(audits[0]);
  }
  EXPECT_GT(times.size(), 3U);
}

TEST(RefreshAudit, NeverComesWhereItIsOff) {
  Play play(1, without_audit());
  play.reconnect();
  std::size_t loads = 0;
  for (int hour = 0; hour < 100; ++hour, play.pass(3'600'000)) {
    loads += count_of<Refresh::Load>(run(play, 1, [] {}));
  }
  EXPECT_EQ(loads, 1U);
}

TEST(RefreshAudit, DoesNotSpinWhileTheReadingConnectionIsNotReady) {
  RefreshSettings settings;
  settings.audit_ns = 1'000 * kScriptMs;
  Play play(1, settings);
  Script().asks("connect").listens().asks("barrier 1").barrier_returns(1).play(play);
  for (int i = 0; i < 50; ++i) {
    const Refresh::Action action = play.next();
    if (const auto* barrier = std::get_if<Refresh::SendBarrier>(&action)) {
      play.refresh.barrier_returned(barrier->number);
    } else {
      ASSERT_TRUE(std::holds_alternative<Refresh::Wait>(action));
      ASSERT_GT(std::get<Refresh::Wait>(action).until_ns, play.now) << "a busy loop";
      play.now = std::get<Refresh::Wait>(action).until_ns;
    }
  }
}

TEST_F(RefreshAuditLive, TakesOneSourceAfterTheOther) {
  play(Script().asks("audit 0"));
  expect_no_audit();
  play_.refresh.audit_returned();
  play(Script().asks("compare 0"));
  expect_no_audit();
  play_.refresh.audit_done();
  play(Script().asks("audit 1"));
  play_.refresh.audit_returned();
  play(Script().asks("compare 1"));
  play_.refresh.audit_done();
  expect_no_audit();
}

TEST_F(RefreshAuditLive, ComparesWhenAllThatWasNotifiedBeforeIsApplied) {
  play(Script().asks("audit 0").notified(0, {"7"}).asks("reread 0: 7"));
  play_.refresh.audit_returned();
  expect_no_audit();
  play(Script().notified(0, {"8"}).is_done().asks("reread 0: 8").asks("compare 0"));
}

TEST_F(RefreshAuditLive, LooksCloserAtTheSameSource) {
  play(Script().asks("audit 0"));
  play_.refresh.audit_returned();
  play(Script().asks("compare 0"));
  play_.refresh.audit_again();
  play(Script().asks("audit 0"));
  play_.refresh.audit_returned();
  play(Script().asks("compare 0"));
  play_.refresh.audit_done();
  play(Script().asks("audit 1"));
}

TEST_F(RefreshAuditLive, GoesOnAfterOneThatFailed) {
  play(Script().asks("audit 0"));
  play_.refresh.audit_failed();
  play(Script().asks("audit 1"));
}

TEST_F(RefreshAuditLive, IsForgottenWithTheConnections) {
  play(Script().asks("audit 0").fails());
  play_.refresh.audit_returned();  // too late
  play_.reconnect();
  play(Script().asks("barrier 2").barrier_returns(2).asks("load 0"));
}

}  // namespace
}  // namespace latchkey
