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
