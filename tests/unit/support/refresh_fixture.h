// The refresh policy brought to a state from which tests go on: a first conversation, one source in
// step, two sources with an audit due; and a cooperative database that runs for a while.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <variant>
#include <vector>

#include "loader/refresh.h"
#include "tests/unit/support/refresh_script.h"

namespace latchkey::test {

inline RefreshSettings without_audit() {
  RefreshSettings settings;
  settings.audit_ns = 0;
  return settings;
}

// Two sources, from nothing to a proven heartbeat, a re-read and a proven sync.
inline Script first_conversation() {
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

// Runs a cooperative database and a clock for `ms`; returns the actions.
inline std::vector<Refresh::Action> run(Play& play, std::int64_t ms,
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

}  // namespace latchkey::test
