// A model of the loader beside the refresh policy: it records the notifications so far, those
// covered by a finished read, and the barriers that returned, and checks each action of the policy
// against the rules.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <map>
#include <optional>
#include <random>
#include <set>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "loader/refresh.h"
#include "tests/unit/support/refresh_script.h"

namespace latchkey::test {

// Rule -> its first violation.
using Breaches = std::map<std::string, std::string>;

class RefreshModel {
 protected:
  RefreshModel(std::uint64_t seed, Breaches& breaches)
      : random_(seed),
        seed_(seed),
        breaches_(breaches),
        settings_(random_settings()),
        sources_(1 + random_() % 3),
        refresh_(sources_.size(), settings_, seed) {}

  // Event numbers, increased by each event: they define "before" and "after" without a clock.
  using Moment = std::uint64_t;
  static constexpr Moment kNothing = std::numeric_limits<Moment>::max();
  struct Source {
    std::map<std::string, Moment> ids;  // notified and not read yet
    std::multiset<std::string> named;   // notified and not requested by name yet
    std::optional<Moment> all;          // like `ids`, for the whole table: the first such moment
    std::optional<std::int64_t> no_load_before_ns;  // except for our own reasons
    std::int64_t retry_ns = 0;                      // if suspended
    int own_loads = 0;  // permitted for our own reasons; one more may be under way
    bool suspended = false;
    bool perhaps_too_many = false;  // ids since the last load: a load may replace re-reads
    Moment refused_at = 0;
    std::optional<std::int64_t> proven_ns;  // on this connection
    Moment proven_by = 0;                   // when that barrier was sent
    std::map<std::size_t, int> passed_by;   // others' queries since this one has ids to re-read
  };
  struct AuditUnderWay {
    std::size_t source;
    std::optional<Moment> returned_at;
    bool comparing = false;
  };
  struct Barrier {
    std::uint64_t number;
    std::int64_t sent_ns;
    Moment sent_at;
    Moment returned_at = 0;
    std::vector<bool> nothing_unread = {};  // of each source, when it returned
  };

  RefreshSettings random_settings() {
    RefreshSettings settings;
    settings.heartbeat_ns = static_cast<std::int64_t>(10 + random_() % 2000) * kScriptMs;
    settings.audit_ns =
        random_() % 2 == 0 ? 0 : static_cast<std::int64_t>(50 + random_() % 60'000) * kScriptMs;
    settings.reread_ids_max = 1 + random_() % 4;
    settings.pending_ids_max = 1 + random_() % 12;
    return settings;
  }

  void expect(bool true_of_it, const std::string& rule, const std::string& what) {
    if (true_of_it || breaches_.contains(rule)) return;
    std::string past;
    for (std::size_t i = log_.size() < 30 ? 0 : log_.size() - 30; i < log_.size(); ++i) {
      past += "\n    " + log_[i];
    }
    breaches_[rule] = what + "; seed " + std::to_string(seed_) + ", after" + past;
  }
  void log(std::string line) { log_.push_back(script_time(now_) + ": " + std::move(line)); }
  bool one_in(std::uint64_t n) { return random_() % n == 0; }

  void mark_all(Source& source) {
    ++moment_;
    if (!source.all) source.all = moment_;
  }
  std::size_t task_index() const {
    return std::visit([](const auto& task) { return task.source; }, *task_);
  }
  Source& task_source() { return sources_[task_index()]; }
  [[nodiscard]] Moment oldest_unread(std::size_t index) const {
    const Source& source = sources_[index];
    Moment oldest = kNothing;
    if (task_ && task_index() == index && !reading_.empty()) oldest = *reading_.begin();
    if (source.all) oldest = std::min(oldest, *source.all);
    for (const auto& [id, moment] : source.ids) oldest = std::min(oldest, moment);
    return oldest;
  }
  // Ids that have been read may still be requested a second time, so these must be gone too.
  [[nodiscard]] bool nothing_unread(std::size_t index) const {
    const bool task_under_way = task_ && task_index() == index;
    return !task_under_way && oldest_unread(index) == kNothing && sources_[index].named.empty();
  }
  [[nodiscard]] Moment oldest_unread() const {
    Moment oldest = kNothing;
    for (std::size_t i = 0; i < sources_.size(); ++i) oldest = std::min(oldest, oldest_unread(i));
    return oldest;
  }
  void fail() {
    if (!connecting_) return;
    log("fails");
    connecting_ = listening_ = working_ = heard_ = false;
    barrier_.reset();
    audit_.reset();
    returned_.clear();
    task_.reset();
    reading_.clear();
    last_barrier_ns_.reset();
    for (Source& source : sources_) {
      source.proven_ns.reset();
      source.proven_by = 0;
      source.passed_by.clear();
    }
    refresh_.failed(now_);
  }

  // ---- actions

  void obey() {
    for (int actions = 0;; ++actions) {
      if (actions > 1000) return expect(false, "comes to rest", "1000 actions without a wait");
      const Refresh::Action action = refresh_.next(now_);
      if (const auto* wait = std::get_if<Refresh::Wait>(&action)) {
        expect(wait->until_ns > now_, "waits for the future", describe(action));
        return expect_all_proven();
      }
      log(describe(action));
      std::visit([this](const auto& a) { obey(a); }, action);
    }
  }
  // Notifications and reads of one source delay no other's proof.
  void expect_all_proven() {
    if (!working_ || !heard_ || returned_.empty()) return;
    for (std::size_t i = 0; i < sources_.size(); ++i) {
      const Source& source = sources_[i];
      if (source.suspended || source.perhaps_too_many) continue;
      for (const Barrier& barrier : returned_) {
        if (barrier.returned_at < source.refused_at) continue;
        if (!barrier.nothing_unread[i] && !nothing_unread(i)) continue;
        expect(source.proven_ns && *source.proven_ns >= barrier.sent_ns,
               "delays no source's proof for another's sake",
               "source " + std::to_string(i) + " by barrier " + std::to_string(barrier.number));
      }
    }
  }
  void obey(const Refresh::Wait&) {}
  void obey(const Refresh::Connect&) {
    expect(!connecting_, "connects only when down", "connects");
    connecting_ = true;
  }
  void obey(const Refresh::SendBarrier& action) {
    expect(listening_ && !barrier_, "has one barrier in flight", describe(action));
    expect(action.number > last_barrier_, "numbers barriers upwards", describe(action));
    const bool due = !last_barrier_ns_ || now_ - *last_barrier_ns_ >= settings_.heartbeat_ns / 10;
    const bool load_waits = std::ranges::any_of(sources_, [](const Source& s) { return !!s.all; });
    expect(due || load_waits || many_ids_ || !syncs_.empty() || unproven_sync_abandoned_,
           "looks only so often for others' sake", describe(action));
    many_ids_ = unproven_sync_abandoned_ = false;
    last_barrier_ns_ = now_;
    last_barrier_ = action.number;
    barrier_ = Barrier{action.number, now_, ++moment_};
  }
  void obey(const Refresh::Load& action) {
    begin(action);
    Source& source = sources_[action.source];
    const bool in_time = !source.no_load_before_ns || now_ >= *source.no_load_before_ns;
    const bool retried = source.suspended && now_ >= source.retry_ns;
    expect(in_time || source.own_loads > 0 || retried, "limits the rate of reloads",
           describe(action));
    load_is_ours_ = source.own_loads > 0 || retried;
    if (source.own_loads > 0) --source.own_loads;
    take_all(source);
  }
  void obey(const Refresh::Reread& action) {
    begin(action);
    expect(!action.ids.empty() && action.ids.size() <= settings_.reread_ids_max, "cuts re-reads",
           describe(action));
    Source& source = sources_[action.source];
    for (const std::string& id : action.ids) {
      const auto named = source.named.find(id);
      expect(named != source.named.end(), "re-reads what was notified, once", describe(action));
      if (named != source.named.end()) source.named.erase(named);
      const auto found = source.ids.find(id);
      if (found == source.ids.end()) continue;  // a load that began meanwhile has read it, too
      reading_.insert(found->second);
      source.ids.erase(found);
    }
  }
  template <typename Task>
  void begin(const Task& task) {
    expect(!task_, "has one task under way", describe(task));
    expect(working_ && listening_ && heard_, "reads only once it is proven to hear",
           describe(task));
    task_ = task;
    task_since_ns_ = now_;
    sources_[task.source].passed_by.clear();
    for (std::size_t i = 0; i < sources_.size(); ++i) {
      Source& waiting = sources_[i];
      const bool rereads = !waiting.suspended && !waiting.all && !waiting.perhaps_too_many;
      if (i == task.source || !rereads || waiting.ids.empty()) continue;
      expect(++waiting.passed_by[task.source] <= 1, "takes turns", describe(task));
    }
  }
  void take_all(Source& source) {
    for (const auto& [id, moment] : source.ids) reading_.insert(moment);
    source.ids.clear();
    source.named.clear();
    source.perhaps_too_many = false;
    if (source.all) reading_.insert(*source.all);
    source.all.reset();
  }
  void obey(const Refresh::Prove& prove) {
    const auto barrier = std::ranges::find(returned_, prove.boot_ns, &Barrier::sent_ns);
    const bool shown = std::ranges::any_of(
        returned_, [&](const Barrier& b) { return b.sent_ns >= prove.boot_ns; });
    expect(shown, "proves nothing newer than a returned barrier", describe(prove));
    if (barrier == returned_.end()) {
      return expect(false, "proves the instants of barriers", describe(prove));
    }
    Moment sent_at = 0;  // several barriers may have been sent at the same instant
    for (const Barrier& b : returned_) {
      if (b.sent_ns == prove.boot_ns) sent_at = std::max(sent_at, b.sent_at);
    }
    for (const std::size_t index : prove.sources) {
      Source& source = sources_[index];
      expect(!source.suspended, "proves no suspended source", describe(prove));
      expect(!source.proven_ns || prove.boot_ns >= *source.proven_ns, "never proves backwards",
             describe(prove));
      source.proven_ns = prove.boot_ns;
      source.proven_by = sent_at;
      expect(oldest_unread(index) > barrier->returned_at, "has applied all that came before",
             describe(prove) + ", something notified at moment " +
                 std::to_string(oldest_unread(index)) + " is unread; the barrier returned at " +
                 std::to_string(barrier->returned_at));
    }
    for (const std::uint64_t sync : prove.syncs) {
      const auto asked = syncs_.find(sync);
      expect(asked != syncs_.end(), "completes a sync once, and no abandoned one", describe(prove));
      if (asked == syncs_.end()) continue;
      for (const Source& source : sources_) {
        expect(!source.suspended, "completes no sync while one is suspended", describe(prove));
        expect(asked->second < source.proven_by,
               "completes a sync when a later barrier has proven all", describe(prove));
      }
      syncs_.erase(asked);
    }
  }
  void obey(const Refresh::Audit& action) {
    expect(!audit_, "has one audit under way", describe(action));
    expect(settings_.audit_ns > 0, "audits only where it is wanted", describe(action));
    expect(!sources_[action.source].suspended, "audits only where it is wanted", describe(action));
    audit_ = AuditUnderWay{action.source, {}};
  }
  void obey(const Refresh::Compare& action) {
    const bool ready = audit_ && audit_->returned_at && !audit_->comparing;
    expect(ready && audit_->source == action.source, "compares what has returned, once",
           describe(action));
    if (!ready) return;
    const bool applied =
        sources_[action.source].suspended || oldest_unread(action.source) > *audit_->returned_at;
    expect(applied, "compares when all that came before is applied", describe(action));
    audit_->comparing = true;
  }
  void obey(const Refresh::Disconnect& action) {
    const bool late = barrier_ && now_ >= barrier_->sent_ns + settings_.barrier_deadline_ns;
    expect(late, "disconnects only for a lost barrier", describe(action));
    fail();
  }

  std::mt19937_64 random_;
  std::uint64_t seed_;
  Breaches& breaches_;
  RefreshSettings settings_;
  std::vector<Source> sources_;
  Refresh refresh_;
  std::vector<std::string> log_;

  std::int64_t now_ = kScriptStart;
  Moment moment_ = 0;
  bool connecting_ = false, listening_ = false, working_ = false, heard_ = false;
  std::optional<Barrier> barrier_;
  std::uint64_t last_barrier_ = 0;
  bool many_ids_ = false;  // there are so many that a load may replace re-reads
  bool unproven_sync_abandoned_ = false;
  std::vector<Barrier> returned_;  // on this connection
  std::optional<std::variant<Refresh::Load, Refresh::Reread>> task_;
  std::int64_t task_since_ns_ = 0;
  bool load_is_ours_ = false;
  std::optional<AuditUnderWay> audit_;
  std::multiset<Moment> reading_;  // moments that the present task will have covered
  std::optional<std::int64_t> last_barrier_ns_;
  std::map<std::uint64_t, Moment> syncs_;  // requested, not completed yet
  std::uint64_t last_sync_ = 0;
};

}  // namespace latchkey::test
