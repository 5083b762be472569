// The refresh policy as scripts: events and time in, actions out.
#include "loader/refresh.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <optional>

#include "tests/unit/support/helpers.h"
#include "tests/unit/support/refresh_script.h"

namespace latchkey {
namespace {

using test::describe;
using test::kScriptMs;
using test::Play;
using test::Script;

RefreshSettings without_audit() {
  RefreshSettings settings;
  settings.audit_ns = 0;
  return settings;
}

// Two sources, from nothing to a proven heartbeat, a re-read and a proven sync.
Script first_conversation() {
  Script script;
  script.asks("connect").waits("ever");
  script.passes(2).listens().asks("barrier 1").waits("5002");
  script.passes(3).can_work().waits("5002");  // not before notifications are proven
  script.passes(1).barrier_returns(1).asks("load 0").waits("1002");
  script.notified(0, {"7", "8"}).notified(1, {"0"}).waits("1002");  // one task after another
  script.passes(10).is_done().asks("prove 2").asks("load 1").waits("1002");  // which covers 0
  script.notified(1, {"1"}).passes(10).is_done().asks("prove 2");
  script.asks("reread 0: 7 8").waits("1002");
  script.is_done().asks("reread 1: 1").is_done().waits("1002");
  script.passes(976).asks("barrier 2").waits("6002");
  script.passes(1).barrier_returns(2).asks("prove 1002").waits("2002");
  script.sync_wanted(5).asks("barrier 3").waits("6003");
  script.passes(2).notified(1, {"9"}).asks("reread 1: 9").barrier_returns(3);
  script.asks("prove 1003").waits("2003");  // the other source's heartbeat
  script.passes(2).is_done().asks("prove 1003 sync 5").waits("2003");
  return script;
}

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

// ---- a barrier that is delayed or refused

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

TEST(RefreshBackoff, GrowsWithJitterWithinItsBoundsAndStartsAnewAfterAProof) {
  const RefreshSettings settings;
  std::set<std::int64_t> first_waits;
  for (std::uint64_t seed = 0; seed < 50; ++seed) {
    Play play(1, without_audit(), test::seed() + seed);
    std::int64_t last = 0;
    for (int attempt = 0; attempt < 40; ++attempt) {
      EXPECT_EQ(play.said(), "connect");
      play.refresh.failed(play.now);
      const std::int64_t wait = std::get<Refresh::Wait>(play.next()).until_ns - play.now;
      EXPECT_GE(wait, settings.backoff_min_ns) << "attempt " << attempt;
      EXPECT_LE(wait, settings.backoff_max_ns) << "attempt " << attempt;
      if (attempt == 0) first_waits.insert(wait);
      EXPECT_GE(2 * wait, std::min(last, settings.backoff_max_ns)) << "it grows, jitter aside";
      EXPECT_TRUE(attempt < 10 || wait >= settings.backoff_max_ns / 2) << "attempt " << attempt;
      last = wait;
      play.now += wait;
    }
    Script().asks("connect").listens().can_work().asks("barrier 1").barrier_returns(1).play(play);
    Script().asks("load 0").is_done().play(play);
    EXPECT_TRUE(std::holds_alternative<Refresh::Prove>(play.next()));
    play.refresh.failed(play.now);
    const std::int64_t wait = std::get<Refresh::Wait>(play.next()).until_ns - play.now;
    EXPECT_LE(wait, 2 * settings.backoff_min_ns);
  }
  EXPECT_GT(first_waits.size(), 40U) << "hosts that lost one database do not all return at once";
}

TEST(RefreshBackoff, IsShortWhileSomebodyWaitsForASync) {
  const RefreshSettings settings;
  for (const bool before : {false, true}) {
    Play play(1, without_audit(), test::seed());
    for (int attempt = 0; attempt < 20; ++attempt) {
      EXPECT_EQ(play.said(), "connect");
      if (before) play.refresh.sync_wanted(1);
      play.refresh.failed(play.now);
      if (!before && attempt == 19) play.refresh.sync_wanted(1);
      const std::int64_t wait = std::get<Refresh::Wait>(play.next()).until_ns - play.now;
      if (before || attempt == 19) {
        EXPECT_LE(wait, settings.sync_backoff_ns);
      }
      play.now += wait;
    }
  }
}

// Runs a cooperative database and a clock for `ms`; returns the actions.
std::vector<Refresh::Action> run(Play& play, std::int64_t ms,
                                 const std::function<void()>& each_ms) {
  std::vector<Refresh::Action> actions;
  for (std::int64_t i = 0; i < ms; ++i, play.pass(1)) {
    each_ms();
    for (;;) {
      const Refresh::Action action = play.next();
      if (std::holds_alternative<Refresh::Wait>(action)) break;
      actions.push_back(action);
      if (const auto* barrier = std::get_if<Refresh::SendBarrier>(&action)) {
        play.refresh.barrier_returned(barrier->number);
      }
      if (std::holds_alternative<Refresh::Load>(action) ||
          std::holds_alternative<Refresh::Reread>(action)) {
        play.refresh.work_done(play.now);
      }
      if (std::holds_alternative<Refresh::Audit>(action)) play.refresh.audit_returned();
      if (std::holds_alternative<Refresh::Compare>(action)) play.refresh.audit_done();
    }
  }
  return actions;
}

template <typename Kind>
std::size_t count_of(const std::vector<Refresh::Action>& actions) {
  return static_cast<std::size_t>(std::ranges::count_if(
      actions, [](const auto& action) { return std::holds_alternative<Kind>(action); }));
}

// ---- heartbeats

// In step at 0 ms with one source; barrier 1 has returned, the next heartbeat is due at 1000.
class RefreshLive : public testing::Test {
 protected:
  explicit RefreshLive(RefreshSettings settings = without_audit()) : play_(1, settings) {
    Script().asks("connect").listens().can_work().asks("barrier 1").barrier_returns(1).play(play_);
    Script().asks("load 0").is_done().asks("prove 0").play(play_);
  }
  void play(const Script& script) { script.play(play_); }
  Play play_;
};

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

// ---- syncs

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

// ---- many notifications

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

// ---- audits

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

// In step since 0 ms with two sources; the first audit is due between 900 and 1100.
class RefreshAuditLive : public testing::Test {
 protected:
  RefreshAuditLive() : play_(2, settings()) {
    Script().asks("connect").listens().can_work().asks("barrier 1").barrier_returns(1).play(play_);
    Script().asks("load 0").is_done().asks("prove 0").play(play_);
    Script().asks("load 1").is_done().asks("prove 0").play(play_);
    play_.pass(1100);
  }
  static RefreshSettings settings() {
    RefreshSettings settings;
    settings.audit_ns = 1000 * kScriptMs;
    settings.heartbeat_ns = 100'000 * kScriptMs;
    return settings;
  }
  void play(const Script& script) { script.play(play_); }
  // The next action must not be about an audit.
  void expect_no_audit() {
    const std::string said = play_.said();
    EXPECT_TRUE(said.starts_with("wait")) << said;
  }
  Play play_;
};

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

// ---- a table that has changed since it was looked up

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

// ---- sources that cannot be followed

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

// ---- several servers

TEST(RefreshHosts, AreTriedInTurnBeforeTheWaitGrows) {
  const RefreshSettings settings = without_audit();
  Play play(1, settings, test::seed());
  EXPECT_EQ(play.said(), "connect");
  for (int round = 0; round < 4; ++round) {
    for (int host = 0; host < 3; ++host) {
      play.refresh.failed(play.now, /*others=*/host < 2);
      const auto action = play.next();
      std::int64_t waited = 0;
      if (const auto* wait = std::get_if<Refresh::Wait>(&action)) {
        waited = wait->until_ns - play.now;
        play.now = wait->until_ns;
        EXPECT_EQ(play.said(), "connect");
      }
      const std::int64_t least = settings.backoff_min_ns << round;
      if (host < 2) {
        EXPECT_LE(waited, settings.backoff_min_ns) << "another server may be there";
      } else {
        EXPECT_GE(waited,
                  std::min(settings.backoff_max_ns, std::max(settings.backoff_min_ns, least / 2)));
      }
    }
  }
}

// ---- disabled audits

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

}  // namespace
}  // namespace latchkey
