// Notifications of rows and of tables: re-reads, and the reloads that replace them.
#include <gtest/gtest.h>

#include "tests/unit/support/refresh_fixture.h"

namespace latchkey {
namespace {

using test::count_of;
using test::kScriptMs;
using test::Play;
using test::RefreshLive;
using test::run;
using test::Script;
using test::without_audit;

struct RefreshSmall : RefreshLive {
  static RefreshSettings settings() {
    RefreshSettings settings = without_audit();
    settings.reread_ids_max = 3;
    settings.pending_ids_max = 7;
    return settings;
  }
  RefreshSmall() : RefreshLive(settings()) {}
};

TEST_F(RefreshSmall, CutsManyIdsIntoSeveralQueriesAndAsksForNoneTwice) {
  Script script;
  script.notified(0, {"1", "2", "3"}).notified(0, {"4", "2", "1"}).notified(0, {"5", "6", "7"});
  script.asks("reread 0: 1 2 3").is_done().asks("reread 0: 4 5 6").notified(0, {"1"});
  script.is_done().asks("reread 0: 7").is_done().asks("reread 0: 1").is_done().waits("1000");
  play(script);
}

TEST_F(RefreshSmall, CollapsesTooManyIdsIntoOneReload) {
  const auto flood = [] {
    Script script;
    for (int i = 0; i < 100; ++i) script.notified(0, {"id " + std::to_string(i)});
    return script;
  };
  const auto rest = [] {
    return Script().asks("reread 0: id 96 id 97 id 98").is_done().asks("reread 0: id 99").is_done();
  };
  play(flood());
  EXPECT_LE(play_.refresh.pending_ids(), 7U);
  play(Script().asks("barrier 2"));
  play(rest());
  play(Script().waits("5000").barrier_returns(2).asks("load 0").waits("1000").is_done());
  play(Script().asks("prove 0").waits("1000"));
  play(flood());
  // The next reload must wait; ids notified after the collapse need not.
  EXPECT_LE(play_.refresh.pending_ids(), 7U);
  play(Script().asks("barrier 3").barrier_returns(3));
  play(rest());
  play(Script().passes(999).waits("1000").passes(1).asks("barrier 4").asks("load 0"));
  play(Script().barrier_returns(4).waits("2000").is_done().asks("prove 1000").waits("2000"));
}

TEST_F(RefreshLive, CollapsesTooManyBytesOfIdsIntoOneReload) {
  const std::size_t enough = RefreshSettings().pending_bytes_max / 1000 + 1;
  for (std::size_t i = 0; i < enough; ++i) {
    const std::string number = std::to_string(i);
    play_.refresh.notified(0, {number + std::string(1000 - number.size(), 'x')});
    ASSERT_EQ(play_.refresh.pending_ids(), i + 1 < enough ? i + 1 : 0);
  }
  play(Script().asks("barrier 2").barrier_returns(2).asks("load 0").is_done().asks("prove 0"));
}

// One transaction may send many notifications, and all of them may arrive after the first one has
// requested a load.
TEST_F(RefreshSmall, OneLoadSeesWhateverWasNotifiedOfBeforeItsBarrier) {
  Script script;
  script.notified_all(0).asks("barrier 2").waits("5000");
  for (int i = 0; i < 100; ++i) script.notified(0, {"id " + std::to_string(i)});
  script.barrier_returns(2).asks("load 0").is_done().asks("prove 0").waits("1000");
  play(script);
  EXPECT_EQ(play_.refresh.pending_ids(), 0U);
}

// TRUNCATE and then many rows in one transaction: the barrier that detects it returns after all of
// them.
TEST_F(RefreshSmall, OneLoadSeesATruncateAndWhateverFollowedInItsTransaction) {
  Script script;
  script.happens("doubts", [](Play& play) { play.refresh.doubted(); });
  script.passes(100).asks("barrier 2");
  script.happens("changed", [](Play& play) { play.refresh.reload(0, LoadReason::kTableChanged); });
  script.waits("5100").notified(0, {"1"}).asks("reread 0: 1");
  for (int i = 0; i < 100; ++i) script.notified(0, {"id " + std::to_string(i)});
  script.is_done().asks("reread 0: id 96 id 97 id 98").barrier_returns(2).is_done();
  script.asks("load 0").is_done().asks("prove 100").waits("1100");
  play(script);
}

TEST_F(RefreshLive, LoadsNotBeforeABarrierThatWasSentAfterItWasAsked) {
  Script script;
  script.sync_wanted(1).asks("barrier 2").notified_all(0).waits("5000");
  script.barrier_returns(2).asks("barrier 3").barrier_returns(3);
  script.asks("load 0").is_done().asks("prove 0 sync 1").waits("1000");
  play(script);
}

TEST_F(RefreshLive, HoldsProofsBackUntilADeferredReloadIsDone) {
  Script script;  // the first reload starts at once
  script.notified_all(0).asks("barrier 2").barrier_returns(2).asks("load 0").is_done();
  script.asks("prove 0");
  script.passes(100).notified_all(0).sync_wanted(1).asks("barrier 3").barrier_returns(3);
  script.waits("1000")
      .notified(0, {"x"})
      .asks("reread 0: x")
      .is_done()
      .waits("1000")
      .passes(899)
      .waits("1000");
  script.passes(1).asks("load 0").passes(3000).is_done().asks("barrier 4");
  script.asks("prove 100 sync 1").barrier_returns(4).asks("prove 4000");
  // The load took 3 s, so the next one requested waits for twice as long.
  script.notified_all(0).asks("barrier 5").barrier_returns(5).waits("5000");
  script.passes(1000).asks("barrier 6").barrier_returns(6).waits("6000");
  play(script);
  play_.now = test::kScriptStart + 9999 * kScriptMs;
  play(Script().asks("barrier 7").barrier_returns(7).waits("10000"));
  play(Script().passes(1).asks("load 0").is_done().asks("prove 9999"));
}

// A barrier detects a TRUNCATE; any role can send a notification of one.
TEST_F(RefreshLive, LooksSoonWhenATruncateMayHaveBeenButSeldomForAFlood) {
  const auto doubts = [](Play& play) { play.refresh.doubted(); };
  Script script;  // the last barrier was sent at 0
  script.passes(10).happens("doubts", doubts).waits("100").passes(90).asks("barrier 2");
  script.happens("doubts", doubts).waits("5100");  // the TRUNCATE may be later than that barrier
  script.barrier_returns(2).asks("prove 100").waits("200").passes(100).asks("barrier 3");
  script.barrier_returns(3).asks("prove 200").waits("1200");
  play(script);
  const auto actions = run(play_, 10'000, [&] { play_.refresh.doubted(); });
  EXPECT_EQ(count_of<Refresh::Load>(actions), 0U) << "the loader compares, and asks for one";
  EXPECT_LE(count_of<Refresh::SendBarrier>(actions), 101U);
  EXPECT_EQ(count_of<Refresh::Prove>(actions), count_of<Refresh::SendBarrier>(actions));
}

// A TRUNCATE detected by the barrier that is about to return, with rows that changed in the same
// transaction, or during another load that may have begun too early.
TEST_F(RefreshLive, ProvesAChangedTableOnlyAfterALoadThatBeganLater) {
  const auto changed = [](Play& play) { play.refresh.reload(0, LoadReason::kTableChanged); };
  Script script;
  script.passes(1000).notified(0, {"7"}).asks("barrier 2").asks("reread 0: 7");
  script.happens("changed", changed).barrier_returns(2).waits("2000").is_done().asks("load 0");
  script.passes(10).happens("changed", changed).waits("2000").is_done().asks("prove 1000");
  play(script);  // as of the time before the second change, which must keep the gap
  play(Script().passes(990).asks("barrier 3").barrier_returns(3).waits("2010"));
  play(Script().passes(10).asks("load 0").is_done().asks("prove 2000"));
}

TEST_F(RefreshLive, ReloadsAtOnceForAReasonOfOurOwn) {
  const auto reload = [](Play& play) { play.refresh.reload(0, LoadReason::kAuditFound); };
  Script script;
  script.notified_all(0).asks("barrier 2").waits("5000");
  script.happens("reload", reload).asks("load 0").is_done().barrier_returns(2).asks("prove 0");
  script.notified_all(0).asks("barrier 3").barrier_returns(3).asks("load 0").is_done();
  script.asks("prove 0").notified_all(0).asks("barrier 4").barrier_returns(4).waits("1000");
  script.happens("reload", reload).asks("load 0").is_done();
  play(script);
}

}  // namespace
}  // namespace latchkey
