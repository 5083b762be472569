// Sources that cannot be read as they were looked up: the refresh policy proves them no more, and
// tries again after a while.
#include <gtest/gtest.h>

#include "tests/unit/support/refresh_fixture.h"

namespace latchkey {
namespace {

using test::describe;
using test::Play;
using test::RefreshAuditLive;
using test::Script;

// The requested rows were not read: the policy proves neither the requests that waited for them
// nor any later one, until the table has been looked up and reloaded.
TEST_F(RefreshAuditLive, AnOvertakenReadingProvesNothing) {
  for (const int source : {0, 1}) {
    play(Script().asks("audit " + std::to_string(source)));
    play_.refresh.audit_failed();
  }
  play(Script().notified(0, {"7"}).asks("reread 0: 7").sync_wanted(5).asks("barrier 2"));
  play(Script().barrier_returns(2));
  play(Script().happens("overtaken", [](Play& play) { play.refresh.work_overtaken(play.now); }));
  const auto action = play_.next();
  const auto* prove = std::get_if<Refresh::Prove>(&action);
  ASSERT_NE(prove, nullptr) << describe(action);
  EXPECT_EQ(prove->sources, std::vector<std::size_t>{1});
  EXPECT_FALSE(play_.refresh.suspended(0)) << "it can be read";
  play(Script().asks("load 0").is_done());
}

class RefreshSuspended : public RefreshAuditLive {
 protected:
  static constexpr std::int64_t kRetryMs = 2000;
  Script refused() {
    return Script().happens("refused", [](Play& play) { play.refresh.work_refused(play.now); });
  }
  void drop_audits() {
    for (const int source : {0, 1}) {
      play(Script().asks("audit " + std::to_string(source)));
      play_.refresh.audit_failed();
    }
  }
};

TEST_F(RefreshSuspended, AreProvenNoMoreWhileTheOthersAre) {
  drop_audits();
  play(Script().notified(0, {"7"}).asks("reread 0: 7"));
  play(refused());
  EXPECT_TRUE(play_.refresh.suspended(0));
  EXPECT_FALSE(play_.refresh.suspended(1));
  play(Script().sync_wanted(5).asks("barrier 2").barrier_returns(2));
  const auto action = play_.next();
  const auto* prove = std::get_if<Refresh::Prove>(&action);
  ASSERT_NE(prove, nullptr) << describe(action);
  EXPECT_EQ(prove->sources, std::vector<std::size_t>{1});
  EXPECT_TRUE(prove->syncs.empty()) << "not everything is in force";
}

TEST_F(RefreshSuspended, AreLoadedAgainAfterAWhileAndThenProven) {
  drop_audits();
  play(Script().notified(0, {"7"}).asks("reread 0: 7").sync_wanted(5));
  play(refused());
  play(Script().asks("barrier 2").barrier_returns(2).asks("prove 1100"));
  play(Script().notified(0, {"8"}).passes(kRetryMs - 1));
  while (describe(play_.next()).starts_with("audit")) play_.refresh.audit_failed();
  EXPECT_TRUE(play_.said().starts_with("wait")) << "nothing of it is read in between";
  play(Script().passes(1).asks("load 0").is_done());
  EXPECT_FALSE(play_.refresh.suspended(0));
  play(Script().asks("barrier 3").barrier_returns(3).asks("prove 3100 sync 5"));
}

TEST_F(RefreshSuspended, AreTriedLessOftenTheLongerALoadTakes) {
  drop_audits();
  play_.refresh.reload(0, LoadReason::kAuditFound);
  play(Script().asks("load 0").passes(1000));
  play(refused());
  play(Script().passes(3999));
  while (describe(play_.next()).starts_with("audit")) play_.refresh.audit_failed();
  EXPECT_TRUE(play_.said().starts_with("wait"));
  play(Script().passes(1).asks("load 0"));
}

// A role that can notify must not cause more attempts.
TEST_F(RefreshSuspended, AreNotTriedMoreOftenForANotification) {
  drop_audits();
  play_.refresh.reload(0, LoadReason::kAuditFound);
  play(Script().asks("load 0"));
  play(refused());
  play(Script().notified_all(0).asks("barrier 2").barrier_returns(2).asks("prove 1100"));
  play(Script().passes(kRetryMs - 1));
  while (describe(play_.next()).starts_with("audit")) play_.refresh.audit_failed();
  EXPECT_TRUE(play_.said().starts_with("wait"));
  play(Script().passes(1).asks("load 0"));
}

TEST_F(RefreshSuspended, AreNotAudited) {
  drop_audits();
  play_.refresh.reload(0, LoadReason::kAuditFound);
  play(Script().asks("load 0"));
  play(refused());
  play(Script().passes(1200).asks("audit 1"));
  play_.refresh.audit_failed();
  EXPECT_TRUE(play_.said().starts_with("wait"));
}

TEST_F(RefreshSuspended, LetGoOfASyncThatIsAbandoned) {
  drop_audits();
  play_.refresh.reload(0, LoadReason::kAuditFound);
  play(Script().asks("load 0").sync_wanted(5).asks("barrier 2"));
  play(refused());
  play(Script().barrier_returns(2).asks("prove 1100"));
  play_.refresh.sync_abandoned(5);
  play(Script().passes(kRetryMs));
  while (describe(play_.next()).starts_with("audit")) play_.refresh.audit_failed();
  EXPECT_FALSE(play_.refresh.suspended(1));
}

}  // namespace
}  // namespace latchkey
