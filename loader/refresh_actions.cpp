// The next action: what Refresh tells the loader to do.
#include <algorithm>
#include <cassert>
#include <limits>
#include <utility>

#include "loader/refresh.h"

namespace latchkey {

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

}  // namespace latchkey
