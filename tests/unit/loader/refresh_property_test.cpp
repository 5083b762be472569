// The refresh policy under random events: for every order of them, it never claims more freshness
// than is proven.
//
// The test plays the rest of the loader, the database, and all senders of notifications; a model
// (tests/unit/support/refresh_model.h) checks each action of the policy.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <set>

#include "tests/unit/support/helpers.h"
#include "tests/unit/support/refresh_model.h"

namespace latchkey {
namespace {

using test::Breaches;
using test::kScriptMs;

class World : test::RefreshModel {
 public:
  World(std::uint64_t seed, Breaches& breaches) : RefreshModel(seed, breaches) {}

  void run(int events) {
    for (int i = 0; i < events; ++i) {
      random_event();
      obey();
    }
    settle();
  }

 private:
  void random_event() {
    if (one_in(15)) return audit_event();
    switch (random_() % 10) {
      case 0:
      case 1: return notify();
      case 2: return one_in(8) ? notify_all() : notify();
      case 3:
      case 4: return one_in(10) ? (one_in(2) ? refuse_task() : overtake_task()) : finish_task();
      case 5:
      case 6: return return_barrier();
      case 7: return sync();
      case 8: return come_up();
      default: return one_in(12) ? fail() : pass();
    }
  }
  void pass() {
    constexpr std::int64_t kSteps[] = {0, 1, 20, 300, 1'500, 7'000};
    now_ += kSteps[random_() % std::size(kSteps)] * kScriptMs;
    log("time passes");
  }
  void notify() {
    if (!listening_) return;
    const std::size_t source = random_() % sources_.size();
    std::vector<std::string> ids;
    for (std::size_t i = random_() % 4; i > 0; --i) ids.push_back(std::to_string(random_() % 20));
    ++moment_;
    const bool load_under_way =
        task_ && task_index() == source && std::holds_alternative<Refresh::Load>(*task_);
    if (sources_[source].suspended && !load_under_way) {
      // The next read covers the whole table.
      if (!ids.empty() && !sources_[source].all) sources_[source].all = moment_;
    } else {
      for (const std::string& id : ids) sources_[source].ids.try_emplace(id, moment_);
      sources_[source].named.insert(ids.begin(), ids.end());
    }
    const std::multiset<std::string>& named = sources_[source].named;
    if (std::set(named.begin(), named.end()).size() > settings_.pending_ids_max) {
      sources_[source].perhaps_too_many = many_ids_ = true;
    }
    log("notified " + std::to_string(source) + " of " + std::to_string(ids.size()));
    refresh_.notified(source, ids);
  }
  void notify_all() {
    if (!listening_) return;
    if (one_in(4)) {
      log("doubts");
      return refresh_.doubted();
    }
    const std::size_t source = random_() % sources_.size();
    const bool ours = one_in(4);
    mark_all(sources_[source]);
    if (ours) sources_[source].own_loads = 2;
    log((ours ? "reload " : "notified of all ") + std::to_string(source));
    if (ours) return refresh_.reload(source, LoadReason::kAuditFound);
    // Three notifications that cause a reload.
    switch (random_() % 3) {
      case 0: return refresh_.notified_all(source);
      case 1: return refresh_.notified_many(source);
      default: return refresh_.reload(source, LoadReason::kTableChanged);
    }
  }
  void sync() {
    if (!syncs_.empty() && one_in(4)) {
      const auto it = std::next(syncs_.begin(), static_cast<long>(random_() % syncs_.size()));
      log("abandons sync " + std::to_string(it->first));
      unproven_sync_abandoned_ = true;
      refresh_.sync_abandoned(it->first);
      syncs_.erase(it);
      return;
    }
    syncs_[++last_sync_] = ++moment_;
    log("sync " + std::to_string(last_sync_));
    refresh_.sync_wanted(last_sync_);
  }
  void come_up() {
    if (!connecting_) return;
    if (!listening_ && (working_ || one_in(2))) {
      listening_ = true;
      heard_ = false;
      for (Source& source : sources_) {
        mark_all(source);
        source.own_loads = 1;
      }
      log("listens");
      refresh_.listen_ready(now_);
    } else if (!working_) {
      working_ = true;
      log("can work");
      refresh_.work_ready(now_);
    }
  }
  void return_barrier() {
    if (one_in(4))
      refresh_.barrier_returned(random_() % 50 + (one_in(2) ? 1'000'000 : 0) +
                                (barrier_ ? barrier_->number + 1 : 0));
    if (!barrier_) return;
    log("barrier returns");
    heard_ = true;
    barrier_->returned_at = ++moment_;
    for (std::size_t i = 0; i < sources_.size(); ++i) {
      barrier_->nothing_unread.push_back(nothing_unread(i));
    }
    returned_.push_back(*barrier_);
    const auto number = std::exchange(barrier_, std::nullopt)->number;
    refresh_.barrier_returned(number);
  }
  void finish_task() {
    if (!task_) return;
    log("done");
    keep_gap();
    if (std::holds_alternative<Refresh::Load>(*task_)) task_source().suspended = false;
    task_.reset();
    reading_.clear();
    refresh_.work_done(now_);
  }
  void keep_gap() {
    if (!std::holds_alternative<Refresh::Load>(*task_) || load_is_ours_) return;
    task_source().no_load_before_ns =
        now_ + std::max(settings_.reload_gap_ns, 2 * (now_ - task_since_ns_));
  }
  void refuse_task() {
    if (!task_) return;
    log("refused");
    give_up_task();
    task_source().suspended = true;
    task_.reset();
    refresh_.work_refused(now_);
  }
  void overtake_task() {
    if (!task_) return;
    log("overtaken");
    give_up_task();
    mark_all(task_source());
    task_.reset();
    refresh_.work_overtaken(now_);
  }
  void give_up_task() {
    keep_gap();
    Source& source = task_source();
    source.refused_at = ++moment_;
    source.retry_ns = now_ + std::max(settings_.suspended_retry_ns, 4 * (now_ - task_since_ns_));
    source.passed_by.clear();
    // All its pending requests are left to the next load of the whole table.
    for (const auto& [id, moment] : source.ids) reading_.insert(moment);
    if (!reading_.empty())
      source.all = std::min(source.all.value_or(*reading_.begin()), *reading_.begin());
    source.ids.clear();
    source.named.clear();
    reading_.clear();
  }
  void audit_event() {
    if (!audit_) return;
    if (one_in(6)) {
      log("audit fails");
      audit_.reset();
      return refresh_.audit_failed();
    }
    if (!audit_->returned_at) {
      log("audit returns");
      audit_->returned_at = ++moment_;
      refresh_.audit_returned();
    } else if (audit_->comparing) {
      const bool again = one_in(2);
      log(again ? "audit looks closer" : "audit is done");
      audit_.reset();
      again ? refresh_.audit_again() : refresh_.audit_done();
    }
  }

  // From here on no failure occurs, so every request must complete.
  void settle() {
    const Moment until = moment_;
    for (int i = 0; i < 100'000; ++i) {
      if (syncs_.empty() && listening_ && oldest_unread() > until) return;
      come_up();
      finish_task();
      if (barrier_) return_barrier();
      now_ += 5 * kScriptMs;
      obey();
    }
    expect(false, "settles", std::to_string(syncs_.size()) + " syncs are left");
  }
};

class RefreshProperty : public testing::TestWithParam<const char*> {
 protected:
  static const Breaches& breaches() {
    static const Breaches found = [] {
      Breaches broken;
      for (std::uint64_t i = 0; i < 400; ++i) World(test::seed() + i, broken).run(600);
      return broken;
    }();
    return found;
  }
};

constexpr const char* kRules[] = {
    "comes to rest",
    "waits for the future",
    "connects only when down",
    "has one barrier in flight",
    "numbers barriers upwards",
    "limits the rate of reloads",
    "cuts re-reads",
    "re-reads what was notified, once",
    "has one task under way",
    "reads only once it is proven to hear",
    "proves nothing newer than a returned barrier",
    "never proves backwards",
    "proves the instants of barriers",
    "has applied all that came before",
    "completes a sync once, and no abandoned one",
    "completes a sync when a later barrier has proven all",
    "completes no sync while one is suspended",
    "disconnects only for a lost barrier",
    "proves no suspended source",
    "delays no source's proof for another's sake",
    "looks only so often for others' sake",
    "takes turns",
    "has one audit under way",
    "audits only where it is wanted",
    "compares what has returned, once",
    "compares when all that came before is applied",
    "settles",
};

TEST_P(RefreshProperty, Holds) {
  const auto broken = breaches().find(GetParam());
  if (broken != breaches().end()) ADD_FAILURE() << broken->second;
}

INSTANTIATE_TEST_SUITE_P(Random, RefreshProperty, testing::ValuesIn(kRules), [](const auto& param) {
  std::string name = param.param;
  std::erase_if(name, [](char c) { return c == ',' || c == '-' || c == '\''; });
  std::ranges::replace(name, ' ', '_');
  return name;
});

TEST(RefreshRules, KnowsAllItsRules) {
  Breaches broken;
  World(test::seed(), broken).run(100);
  for (const auto& [rule, what] : broken) {
    EXPECT_NE(std::ranges::find(kRules, rule), std::end(kRules)) << rule << " is in no list";
  }
}

}  // namespace
}  // namespace latchkey
