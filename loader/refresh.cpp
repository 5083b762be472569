#include "loader/refresh.h"

#include <algorithm>
#include <cassert>
#include <limits>
#include <utility>

namespace latchkey {

const char* load_reason_name(LoadReason reason) {
  switch (reason) {
    case LoadReason::kConnected: return "connected";
    case LoadReason::kNotified: return "notified";
    case LoadReason::kManyIds: return "many_ids";
    case LoadReason::kTableChanged: return "table_changed";
    case LoadReason::kAuditFound: return "audit_found";
    case LoadReason::kTriedAgain: return "tried_again";
    case LoadReason::kAuditUnsure: return "audit_unsure";
  }
  return "";
}

const char* state_name(Refresh::State state) {
  switch (state) {
    case Refresh::State::kConnecting: return "connecting";
    case Refresh::State::kListening: return "listening";
    case Refresh::State::kLoading: return "loading";
    case Refresh::State::kLive: return "live";
    case Refresh::State::kLost: return "lost";
  }
  return "";
}

Refresh::Refresh(std::size_t sources, RefreshSettings settings, std::uint64_t seed)
    : settings_(settings), random_(seed), sources_(sources) {}

// ---- events

void Refresh::listen_ready(std::int64_t now_ns) {
  assert(listen_ == Lane::kConnecting);
  listen_ = Lane::kReady;
  proven_listening_ = false;
  next_heartbeat_ns_ = no_barrier_before_ns_ = now_ns;
  plan_audit(now_ns);
  // Changes before this LISTEN were not notified: count one notification, and load.
  for (Source& source : sources_) {
    ++source.notified;
    source.reload = source.urgent = true;
    source.reason = LoadReason::kConnected;
  }
}

void Refresh::work_ready(std::int64_t) {
  assert(work_ == Lane::kConnecting);
  work_ = Lane::kReady;
}

void Refresh::failed(std::int64_t now_ns, bool others) {
  listen_ = work_ = Lane::kDown;
  live_ = proven_listening_ = false;
  // Syncs outlive the connection: the next connection may prove them in time.
  const auto wait_again = [this](const std::vector<std::uint64_t>& syncs) {
    syncs_waiting_.insert(syncs_waiting_.end(), syncs.begin(), syncs.end());
  };
  if (barrier_) wait_again(barrier_->syncs);
  for (const SyncsUnproven& unproven : syncs_unproven_) wait_again(unproven.syncs);
  barrier_.reset();
  syncs_unproven_.clear();
  look_wanted_ = false;
  task_.reset();
  audit_.reset();
  audits_due_.clear();
  for (Source& source : sources_) {
    drop_ids(source);  // the reload reads their rows
    source.round_open = false;
    source.proofs.clear();
    source.proven = 0;
  }
  failed_ns_ = now_ns;
  retry_ns_ = now_ns + backoff_ns(others);
  if (!syncs_waiting_.empty()) hurry();
}

void Refresh::notified(std::size_t index, std::vector<std::string> ids) {
  if (ids.empty()) return;
  Source& source = sources_.at(index);
  ++source.notified;
  // An urgent reload runs at once and covers these ids. Any session can request a reload that
  // waits, so it must not delay ids that are known to have changed.
  if (source.reload && source.urgent) return;
  // A suspended source runs nothing but the load that ends the suspension. Ids that arrive while it
  // runs may be too late for it, and are kept.
  const auto* load = task_ ? std::get_if<Load>(&*task_) : nullptr;
  if (source.suspended && (load == nullptr || load->source != index)) return;
  for (std::string& id : ids) {
    const std::size_t bytes = id.size();
    if (source.ids.insert(std::move(id)).second) source.id_bytes += bytes;
  }
  if (source.ids.size() > settings_.pending_ids_max ||
      source.id_bytes > settings_.pending_bytes_max) {
    source.ids.clear();
    source.id_bytes = 0;
    want_load(source, LoadReason::kManyIds);
  }
}

void Refresh::notified_all(std::size_t index) {
  ++sources_.at(index).notified;
  want_load(sources_.at(index), LoadReason::kNotified);
}

void Refresh::notified_many(std::size_t index) {
  ++sources_.at(index).notified;
  want_load(sources_.at(index), LoadReason::kManyIds);
}

// Reloads that others can cause keep the gap. They need no barrier after the one that may have
// reported the change: once that barrier is back, so are all notifications of the same transaction.
void Refresh::reload(std::size_t index, LoadReason reason) {
  Source& source = sources_.at(index);
  ++source.notified;
  want_load(source, reason);
  if (reason == LoadReason::kTableChanged || reason == LoadReason::kAuditUnsure) {
    source.reload_after = std::min(source.reload_after, barrier_number_);
    source.reload_asked_for = false;
  } else {
    source.urgent = true;
  }
}

// The first reason is reported.
//
// One transaction may notify of a million rows. A load that begins while these notifications still
// arrive would be followed by a second load, though it has read all the rows. So a reload that is
// not urgent waits for a barrier: every change notified before the barrier returns was committed
// before the load begins.
void Refresh::want_load(Source& source, LoadReason reason) {
  if (source.reload) return;
  source.reload = true;
  source.reason = reason;
  source.reload_after = barrier_number_ + 1;
  source.reload_asked_for = true;
}

void Refresh::drop_ids(Source& source) {
  source.ids.clear();
  source.id_bytes = 0;
  source.round.clear();
}

void Refresh::barrier_held() {
  if (barrier_) barrier_->lost_ns = std::numeric_limits<std::int64_t>::max();
}

void Refresh::barrier_went(std::int64_t now_ns) {
  if (barrier_) barrier_->lost_ns = now_ns + settings_.barrier_deadline_ns;
}

void Refresh::barrier_refused(std::int64_t now_ns) {
  if (!barrier_) return;
  syncs_waiting_.insert(syncs_waiting_.end(), barrier_->syncs.begin(), barrier_->syncs.end());
  barrier_.reset();
  // Syncs and loads that wait for a barrier do not bring the next one forward.
  next_heartbeat_ns_ = no_barrier_before_ns_ = now_ns + settings_.heartbeat_ns;
}

void Refresh::barrier_returned(std::uint64_t number) {
  // An older nonce, or a forged one, proves nothing.
  if (!barrier_ || barrier_->number != number) return;
  barrier_returned_ = number;
  proven_listening_ = true;
  // Proofs that wait for the same work are merged. Above the limit the newer proof replaces the
  // older, which only delays it.
  constexpr std::size_t kProofsMax = 256;
  for (Source& source : sources_) {
    const Proof proof{source.notified, number, barrier_->sent_ns};
    if (!source.proofs.empty() && (source.proofs.back().needs_applied == source.notified ||
                                   source.proofs.size() >= kProofsMax)) {
      source.proofs.back() = proof;
    } else {
      source.proofs.push_back(proof);
    }
  }
  if (!barrier_->syncs.empty()) {
    if (syncs_unproven_.size() < kProofsMax) {
      syncs_unproven_.push_back({number, std::move(barrier_->syncs)});
    } else {
      SyncsUnproven& last = syncs_unproven_.back();
      last.barrier = number;
      last.syncs.insert(last.syncs.end(), barrier_->syncs.begin(), barrier_->syncs.end());
    }
  }
  barrier_.reset();
}

void Refresh::work_done(std::int64_t now_ns) {
  assert(task_);
  Source& source =
      sources_[std::visit([](const auto& task) { return task.source; }, task_.value())];
  if (std::holds_alternative<Load>(*task_)) {
    keep_gap(source, now_ns);
    if (std::exchange(source.suspended, false)) release_syncs();
  }
  if (source.round.empty()) {
    source.round_open = false;
    source.applied = source.reaches;
  }
  task_.reset();
}

void Refresh::keep_gap(Source& source, std::int64_t now_ns) const {
  if (source.reload_was_urgent) return;
  const std::int64_t took_ns = now_ns - task_since_ns_;
  source.no_reload_before_ns = now_ns + std::max(settings_.reload_gap_ns, 2 * took_ns);
}

// The next load reads all rows that this task left out, and barriers that come back from now on
// prove it.
Refresh::Source& Refresh::give_up_task(std::int64_t now_ns) {
  Source& source =
      sources_[std::visit([](const auto& task) { return task.source; }, task_.value())];
  if (std::holds_alternative<Load>(*task_)) keep_gap(source, now_ns);
  drop_ids(source);
  source.round_open = false;
  source.proofs.clear();
  // Has an effect only if the caller suspends the source.
  source.retry_ns = now_ns + std::max(settings_.suspended_retry_ns, 4 * (now_ns - task_since_ns_));
  task_.reset();
  return source;
}

void Refresh::work_refused(std::int64_t now_ns) {
  give_up_task(now_ns).suspended = true;
  note_live();
}

void Refresh::work_overtaken(std::int64_t now_ns) {
  Source& source = give_up_task(now_ns);
  reload(static_cast<std::size_t>(&source - sources_.data()), LoadReason::kTableChanged);
}

bool Refresh::any_suspended() const { return std::ranges::any_of(sources_, &Source::suspended); }

// A sync promises that every change is in force for all sources. So syncs wait while a source is
// suspended, and then for a barrier that is sent at once.
void Refresh::release_syncs() {
  if (any_suspended()) return;
  for (const SyncsUnproven& unproven : syncs_unproven_) {
    syncs_waiting_.insert(syncs_waiting_.end(), unproven.syncs.begin(), unproven.syncs.end());
  }
  syncs_unproven_.clear();
}

// Live: every source that is not suspended has been proven.
void Refresh::note_live() {
  const bool live = std::ranges::all_of(
      sources_, [](const Source& source) { return source.suspended || source.proven > 0; });
  if (!live || live_) return;
  failures_ = 0;
  live_ = ever_live_ = true;
}

void Refresh::audit_returned() {
  if (audit_) audit_->needs_applied = sources_[audit_->source].notified;
}

void Refresh::audit_done() { audit_.reset(); }

void Refresh::audit_again() {
  if (!audit_) return;
  audits_due_.push_front(audit_->source);
  audit_.reset();
}

void Refresh::audit_failed() { audit_.reset(); }

void Refresh::sync_wanted(std::uint64_t sync) {
  syncs_waiting_.push_back(sync);
  hurry();
}

void Refresh::hurry() {
  const std::int64_t half_ns = settings_.sync_backoff_ns / 2;
  retry_ns_ = std::min(retry_ns_, failed_ns_ + half_ns + random_up_to(half_ns));
}

void Refresh::sync_abandoned(std::uint64_t sync) {
  std::erase(syncs_waiting_, sync);
  if (barrier_) std::erase(barrier_->syncs, sync);
  for (SyncsUnproven& unproven : syncs_unproven_) std::erase(unproven.syncs, sync);
}

// ---- the next action

Refresh::Action Refresh::next(std::int64_t now_ns) {
  if (listen_ == Lane::kDown && work_ == Lane::kDown) {
    if (now_ns < retry_ns_) return Wait{retry_ns_};
    listen_ = work_ = Lane::kConnecting;
    return Connect{};
  }
  if (auto action = next_listen(now_ns)) return std::move(*action);
  if (auto action = next_work(now_ns)) return std::move(*action);
  if (auto action = next_audit(now_ns)) return std::move(*action);
  return Wait{wake_ns()};
}

std::optional<Refresh::Action> Refresh::next_listen(std::int64_t now_ns) {
  if (listen_ != Lane::kReady) return std::nullopt;
  if (barrier_) {
    if (now_ns < barrier_->lost_ns) return std::nullopt;
    return Disconnect{"the heartbeat did not come back in time: notifications may be lost"};
  }
  if (now_ns < no_barrier_before_ns_) return std::nullopt;
  const bool a_sync_is_due = !syncs_waiting_.empty() && now_ns >= no_sync_before_ns_;
  const bool look_due = look_wanted_ && now_ns >= no_look_before_ns_;
  if (now_ns < next_heartbeat_ns_ && !a_sync_is_due && !a_load_waits_for_a_barrier() && !look_due) {
    return std::nullopt;
  }
  next_heartbeat_ns_ = now_ns + settings_.heartbeat_ns;
  if (!syncs_waiting_.empty()) no_sync_before_ns_ = now_ns + settings_.sync_gap_ns;
  // Any session can request comparisons: they are at least a tenth of a heartbeat apart.
  look_wanted_ = false;
  no_look_before_ns_ = now_ns + settings_.heartbeat_ns / 10;
  barrier_ = Barrier{++barrier_number_, now_ns, now_ns + settings_.barrier_deadline_ns,
                     std::exchange(syncs_waiting_, {})};
  return SendBarrier{barrier_->number};
}

std::optional<Refresh::Action> Refresh::next_work(std::int64_t now_ns) {
  if (work_ != Lane::kReady || !proven_listening_) return std::nullopt;
  if (auto proof = next_proof()) return proof;
  if (task_) return std::nullopt;
  return begin_task(now_ns);
}

// For each source, the newest proof with all its work done counts. One action reports all sources
// that one barrier proves, older barriers first.
std::optional<Refresh::Action> Refresh::next_proof() {
  std::optional<Proof> oldest;
  for (Source& source : sources_) {
    if (source.suspended) continue;
    const bool idle = !source.round_open && !source.reload && source.ids.empty();
    if (idle) source.applied = source.notified;
    while (source.proofs.size() > 1 && source.proofs[1].needs_applied <= source.applied) {
      source.proofs.pop_front();
    }
    if (source.proofs.empty() || source.proofs.front().needs_applied > source.applied) continue;
    if (!oldest || source.proofs.front().barrier < oldest->barrier) oldest = source.proofs.front();
  }
  if (!oldest) return std::nullopt;
  Prove action{oldest->boot_ns, {}, {}};
  for (std::size_t i = 0; i < sources_.size(); ++i) {
    Source& source = sources_[i];
    if (source.suspended || source.proofs.empty()) continue;
    const Proof& proof = source.proofs.front();
    if (proof.barrier != oldest->barrier || proof.needs_applied > source.applied) continue;
    source.proven = proof.barrier;
    source.proofs.pop_front();
    action.sources.push_back(i);
  }
  action.syncs = take_proven_syncs();
  note_live();
  return action;
}

std::vector<std::uint64_t> Refresh::take_proven_syncs() {
  std::vector<std::uint64_t> syncs;
  if (any_suspended()) return syncs;
  const std::uint64_t proven = std::ranges::min_element(sources_, {}, &Source::proven)->proven;
  while (!syncs_unproven_.empty() && syncs_unproven_.front().barrier <= proven) {
    const std::vector<std::uint64_t>& done = syncs_unproven_.front().syncs;
    syncs.insert(syncs.end(), done.begin(), done.end());
    syncs_unproven_.pop_front();
  }
  return syncs;
}

// Audits run one at a time, and only while the state is live.
std::optional<Refresh::Action> Refresh::next_audit(std::int64_t now_ns) {
  if (!live_ || settings_.audit_ns == 0) return std::nullopt;
  if (now_ns >= next_audit_ns_) {
    if (audits_due_.empty() && !audit_) {
      for (std::size_t i = 0; i < sources_.size(); ++i) audits_due_.push_back(i);
    }
    plan_audit(now_ns);
  }
  if (audit_) {
    const Source& source = sources_[audit_->source];
    const bool settled =
        audit_->needs_applied && (source.suspended || source.applied >= *audit_->needs_applied);
    if (!settled || audit_->comparing) return std::nullopt;
    audit_->comparing = true;
    return Compare{audit_->source};
  }
  while (!audits_due_.empty() && sources_[audits_due_.front()].suspended) audits_due_.pop_front();
  if (audits_due_.empty()) return std::nullopt;
  audit_ = AuditRun{audits_due_.front(), {}};
  audits_due_.pop_front();
  return Audit{audit_->source};
}

// When the source's requested load may begin. The largest value: not before a barrier comes back.
std::int64_t Refresh::load_due_ns(const Source& source) const {
  if (source.urgent) return 0;
  if (barrier_returned_ < source.reload_after) return std::numeric_limits<std::int64_t>::max();
  const bool must_wait = source.suspended && source.reload_asked_for;
  return std::max(source.no_reload_before_ns, must_wait ? source.retry_ns : 0);
}

// True if a load waits for a barrier that has not been sent.
bool Refresh::a_load_waits_for_a_barrier() const {
  return std::ranges::any_of(sources_, [this](const Source& source) {
    return source.reload && !source.urgent && source.reload_after > barrier_number_;
  });
}

// Sources take turns, so that each waits for at most one query of every other source.
std::optional<Refresh::Action> Refresh::begin_task(std::int64_t now_ns) {
  for (std::size_t i = 0; i < sources_.size(); ++i) {
    const std::size_t index = (turn_ + i) % sources_.size();
    task_ = next_task(index, now_ns);
    if (!task_) continue;
    turn_ = (index + 1) % sources_.size();
    task_since_ns_ = now_ns;
    return std::visit([](const auto& task) -> Action { return task; }, *task_);
  }
  return std::nullopt;
}

// A round takes all notifications of the source so far. While a reload has to wait, the round
// leaves `applied` unchanged; the reload advances it.
std::optional<Refresh::Task> Refresh::next_task(std::size_t index, std::int64_t now_ns) {
  Source& source = sources_[index];
  if (source.suspended && now_ns >= source.retry_ns) reload(index, LoadReason::kTriedAgain);
  if (source.reload && now_ns >= load_due_ns(source)) {
    drop_ids(source);
    source.reload_was_urgent = source.urgent;
    source.reload = source.urgent = false;
    source.round_open = true;
    source.reaches = source.notified;
    return Load{index, source.reason};
  }
  if (source.round.empty()) {
    if (source.ids.empty()) return std::nullopt;
    source.round.swap(source.ids);
    source.id_bytes = 0;
    source.round_open = true;
    source.reaches = source.reload ? source.applied : source.notified;
  }
  Reread reread{index, {}};
  while (!source.round.empty() && reread.ids.size() < settings_.reread_ids_max) {
    reread.ids.push_back(std::move(source.round.extract(source.round.begin()).value()));
  }
  return reread;
}

std::int64_t Refresh::wake_ns() const {
  std::int64_t wake = std::numeric_limits<std::int64_t>::max();
  if (listen_ == Lane::kReady) {
    wake = barrier_ ? barrier_->lost_ns : next_heartbeat_ns_;
    if (!barrier_ && !syncs_waiting_.empty()) wake = std::min(wake, no_sync_before_ns_);
    if (!barrier_ && look_wanted_) wake = std::min(wake, no_look_before_ns_);
    if (!barrier_) wake = std::max(wake, no_barrier_before_ns_);
  }
  const bool reading_waits = !task_ && work_ == Lane::kReady && proven_listening_;
  if (reading_waits) {
    // Every task that could begin at once is under way: the remaining ones wait for their time.
    for (const Source& source : sources_) {
      if (source.reload) wake = std::min(wake, load_due_ns(source));
      if (source.suspended) wake = std::min(wake, source.retry_ns);
    }
  }
  if (live_ && settings_.audit_ns > 0) wake = std::min(wake, next_audit_ns_);
  return wake;
}

// Jittered, so that the hosts of a fleet do not all read the table at the same time.
void Refresh::plan_audit(std::int64_t now_ns) {
  const std::int64_t tenth = settings_.audit_ns / 10;
  next_audit_ns_ = now_ns + settings_.audit_ns - tenth + random_up_to(2 * tenth);
}

std::int64_t Refresh::backoff_ns(bool others) {
  // The next of several servers may be the new primary: try it at once.
  if (others) return random_up_to(settings_.backoff_min_ns);
  const int doublings = std::min(failures_++, 16);
  const std::int64_t ceiling =
      std::min(settings_.backoff_max_ns, settings_.backoff_min_ns << doublings);
  // Half fixed, half random: many hosts that lost the same database reconnect one by one.
  return std::max(settings_.backoff_min_ns, ceiling / 2) + random_up_to(ceiling / 2);
}

std::int64_t Refresh::random_up_to(std::int64_t ns) {
  return std::uniform_int_distribution<std::int64_t>(0, ns)(random_);
}

// ---- for status

Refresh::State Refresh::state() const {
  if (listen_ != Lane::kReady || work_ != Lane::kReady) {
    return ever_live_ ? State::kLost : State::kConnecting;
  }
  if (!proven_listening_) return State::kListening;
  return live_ ? State::kLive : State::kLoading;
}

std::size_t Refresh::pending_ids() const {
  std::size_t pending = 0;
  for (const Source& source : sources_) pending += source.ids.size() + source.round.size();
  return pending;
}

}  // namespace latchkey
