// A conversation of the refresh policy as a list of steps: each is an action that it must request,
// or an event. A test plays a script whole, and again with a failure at each step.
//
// Actions are compared as text, so that a failure reads like the script. Its times are
// milliseconds since the script began.
#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <limits>
#include <set>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "loader/refresh.h"

namespace latchkey::test {

inline constexpr std::int64_t kScriptMs = 1'000'000;             // in ns
inline constexpr std::int64_t kScriptStart = 7'000'000'000'000;  // the host has been up for a while

inline std::string script_time(std::int64_t ns) {
  if (ns == std::numeric_limits<std::int64_t>::max()) return "ever";
  const std::int64_t us = (ns - kScriptStart) / 1000;
  std::string text = std::to_string(us / 1000);
  if (us % 1000 != 0) text += "." + std::to_string(us % 1000);
  return text;
}

inline std::string describe(const Refresh::Action& action) {
  struct Describe {
    std::string operator()(const Refresh::Wait& a) const {
      return "wait until " + script_time(a.until_ns);
    }
    std::string operator()(const Refresh::Connect&) const { return "connect"; }
    std::string operator()(const Refresh::SendBarrier& a) const {
      return "barrier " + std::to_string(a.number);
    }
    std::string operator()(const Refresh::Load& a) const {
      return "load " + std::to_string(a.source);
    }
    std::string operator()(const Refresh::Reread& a) const {
      std::string text = "reread " + std::to_string(a.source) + ":";
      for (const std::string& id : a.ids) text += " " + id;
      return text;
    }
    std::string operator()(const Refresh::Prove& a) const {
      std::string text = "prove " + script_time(a.boot_ns);
      for (const std::uint64_t sync : a.syncs) text += " sync " + std::to_string(sync);
      return text;
    }
    std::string operator()(const Refresh::Audit& a) const {
      return "audit " + std::to_string(a.source);
    }
    std::string operator()(const Refresh::Compare& a) const {
      return "compare " + std::to_string(a.source);
    }
    std::string operator()(const Refresh::Disconnect&) const { return "disconnect"; }
  };
  return std::visit(Describe{}, action);
}

// The policy and its clock.
struct Play {
  Refresh refresh;
  std::int64_t now = kScriptStart;

  explicit Play(std::size_t sources, RefreshSettings settings = {}, std::uint64_t seed = 1)
      : refresh(sources, settings, seed) {}
  Refresh::Action next() { return refresh.next(now); }
  std::string said() { return describe(next()); }
  void pass(std::int64_t ms) { now += ms * kScriptMs; }
  // Passes the wait for the next attempt to connect, and brings both lanes up.
  void reconnect() {
    const Refresh::Action action = next();
    if (const auto* wait = std::get_if<Refresh::Wait>(&action)) {
      now = wait->until_ns;
      EXPECT_EQ(said(), "connect");
    } else {
      EXPECT_EQ(describe(action), "connect");
    }
    refresh.listen_ready(now);
    refresh.work_ready(now);
  }
};

class Script {
 public:
  using Event = std::function<void(Play&)>;

  // The next action must be this one.
  Script& asks(std::string action) {
    steps_.push_back({std::move(action), {}});
    return *this;
  }
  Script& waits(const std::string& until) { return asks("wait until " + until); }
  Script& happens(std::string what, Event event) {
    steps_.push_back({std::move(what), std::move(event)});
    return *this;
  }

  // ---- the events
  Script& passes(std::int64_t ms) {
    return happens(std::to_string(ms) + " ms pass", [ms](Play& play) { play.pass(ms); });
  }
  Script& listens() {
    return happens("listens", [](Play& play) { play.refresh.listen_ready(play.now); });
  }
  Script& can_work() {
    return happens("can work", [](Play& play) { play.refresh.work_ready(play.now); });
  }
  Script& barrier_returns(std::uint64_t number) {
    return happens("barrier returns", [=](Play& play) { play.refresh.barrier_returned(number); });
  }
  Script& is_done() {
    return happens("done", [](Play& play) { play.refresh.work_done(play.now); });
  }
  Script& notified(std::size_t source, std::vector<std::string> ids) {
    return happens("notified", [=](Play& play) { play.refresh.notified(source, ids); });
  }
  Script& notified_all(std::size_t source) {
    return happens("notified of all", [=](Play& play) { play.refresh.notified_all(source); });
  }
  Script& sync_wanted(std::uint64_t sync) {
    return happens("sync", [=](Play& play) { play.refresh.sync_wanted(sync); });
  }
  Script& fails() {
    return happens("fails", [](Play& play) { play.refresh.failed(play.now); });
  }

  [[nodiscard]] std::size_t size() const { return steps_.size(); }
  [[nodiscard]] std::string name(std::size_t step) const { return steps_[step].text; }

  // The first `count` steps.
  void play(Play& play, std::size_t count) const {
    for (std::size_t i = 0; i < count; ++i) {
      if (steps_[i].event) {
        steps_[i].event(play);
      } else {
        ASSERT_EQ(play.said(), steps_[i].text) << "step " << i << context(i);
      }
    }
  }
  void play(Play& play) const { this->play(play, size()); }

 private:
  struct Step {
    std::string text;
    Event event;
  };
  [[nodiscard]] std::string context(std::size_t at) const {
    std::string text = ", after: ";
    for (std::size_t i = at < 4 ? 0 : at - 4; i < at; ++i) text += steps_[i].text + "; ";
    return text;
  }
  std::vector<Step> steps_;
};

}  // namespace latchkey::test
