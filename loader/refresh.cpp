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

// ---- what happened

void Refresh::listen_ready(std::int64_t now_ns) {
  assert(listen_ == Lane::kConnecting);
  listen_ = Lane::kReady;
  proven_listening_ = false;
  next_heartbeat_ns_ = now_ns;
  plan_audit(now_ns);
  // Whatever happened while nobody listened counts as notified now.
  ++notified_;
  for (Source& source : sources_) {
    source.reload = source.urgent = true;
    source.reason = LoadReason::kConnected;
  }
}

void Refresh::work_ready(std::int64_t) {
  assert(work_ == Lane::kConnecting);
  work_ = Lane::kReady;
}

void Refresh::failed(std::int64_t now_ns) {
  listen_ = work_ = Lane::kDown;
  live_ = proven_listening_ = false;
  // Syncs outlive the connection: the next one may still prove what they wait for in time.
  const auto wait_again = [this](const std::vector<std::uint64_t>& syncs) {
    syncs_waiting_.insert(syncs_waiting_.end(), syncs.begin(), syncs.end());
  };
  if (barrier_) wait_again(barrier_->syncs);
  for (const Proof& proof : proofs_) wait_again(proof.syncs);
  barrier_.reset();
  proofs_.clear();
  round_.clear();
  round_open_ = false;
  task_.reset();
  audit_.reset();
  audits_due_.clear();
  for (Source& source : sources_) source.ids.clear();  // the reload will see them
  failed_ns_ = now_ns;
  retry_ns_ = now_ns + backoff_ns();
  if (!syncs_waiting_.empty()) hurry();
}

void Refresh::notified(std::size_t index, std::vector<std::string> ids) {
  ++notified_;
  Source& source = sources_.at(index);
  // A reload of our own comes at once. One that was asked for may have to wait, and must not hold
  // back what is known to have changed: anybody can ask for one.
  if (source.reload && source.urgent) return;
  // Nor is anything asked of a suspended source but the load that ends that; what comes while it is
  // under way may be too late for it.
  const auto* load = task_ ? std::get_if<Load>(&*task_) : nullptr;
  if (source.suspended && (load == nullptr || load->source != index)) return;
  for (std::string& id : ids) source.ids.insert(std::move(id));
  if (source.ids.size() > settings_.pending_ids_max) {
    source.ids.clear();
    want_load(source, LoadReason::kManyIds);
  }
}

void Refresh::notified_all(std::size_t index) {
  ++notified_;
  want_load(sources_.at(index), LoadReason::kNotified);
}

void Refresh::reload(std::size_t index, LoadReason reason) {
  ++notified_;
  want_load(sources_.at(index), reason);
  sources_.at(index).urgent = true;
}

// The first reason is told.
//
// One transaction may notify of a million rows: a load that begins while they still come in would
// be followed by another, though it has seen them all. So, unless it is urgent, a barrier goes
// first: what comes before it returns was committed before the load begins.
void Refresh::want_load(Source& source, LoadReason reason) {
  if (source.reload) return;
  source.reload = true;
  source.reason = reason;
  source.reload_after = barrier_number_ + 1;
}

void Refresh::barrier_returned(std::uint64_t number) {
  // An older nonce, or one that somebody else made up, proves nothing.
  if (!barrier_ || barrier_->number != number) return;
  barrier_returned_ = number;
  proven_listening_ = true;
  // Proofs that wait for the same work are one; and past a bound, an older one joins the newer,
  // which only makes it wait longer.
  constexpr std::size_t kProofsMax = 256;
  if (!proofs_.empty() &&
      (proofs_.back().needs_applied == notified_ || proofs_.size() >= kProofsMax)) {
    Proof& last = proofs_.back();
    last.needs_applied = notified_;
    last.boot_ns = barrier_->sent_ns;
    last.syncs.insert(last.syncs.end(), barrier_->syncs.begin(), barrier_->syncs.end());
  } else {
    proofs_.push_back({notified_, barrier_->sent_ns, std::move(barrier_->syncs)});
  }
  barrier_.reset();
}

void Refresh::work_done(std::int64_t now_ns) {
  assert(task_);
  if (const Load* load = std::get_if<Load>(&*task_)) {
    const std::int64_t took_ns = now_ns - task_since_ns_;
    Source& source = sources_[load->source];
    if (!source.reload_was_urgent) {
      source.no_reload_before_ns = now_ns + std::max(settings_.reload_gap_ns, 2 * took_ns);
    }
    source.suspended = false;
    release_syncs();
  }
  task_.reset();
}

void Refresh::work_refused(std::int64_t now_ns) {
  const std::size_t index = std::visit([](const auto& task) { return task.source; }, task_.value());
  Source& source = sources_[index];
  source.suspended = true;
  source.retry_ns = now_ns + std::max(settings_.suspended_retry_ns, 4 * (now_ns - task_since_ns_));
  // The load that ends this will see whatever was left undone.
  source.ids.clear();
  std::erase_if(round_, [index](const Task& task) {
    return std::visit([index](const auto& one) { return one.source == index; }, task);
  });
  task_.reset();
}

// Syncs promise that everything is in force, so they wait while one source is not followed.
void Refresh::release_syncs() {
  if (std::ranges::any_of(sources_, &Source::suspended)) return;
  syncs_waiting_.insert(syncs_waiting_.end(), syncs_held_.begin(), syncs_held_.end());
  syncs_held_.clear();
}

void Refresh::audit_returned() {
  if (audit_) audit_->needs_applied = notified_;
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
  std::erase(syncs_held_, sync);
  if (barrier_) std::erase(barrier_->syncs, sync);
  for (Proof& proof : proofs_) std::erase(proof.syncs, sync);
}

// ---- what to do

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
    if (now_ns < barrier_->sent_ns + settings_.barrier_deadline_ns) return std::nullopt;
    return Disconnect{"the heartbeat did not come back in time: notifications may be lost"};
  }
  const bool a_sync_is_due = !syncs_waiting_.empty() && now_ns >= no_sync_before_ns_;
  if (now_ns < next_heartbeat_ns_ && !a_sync_is_due && !a_load_waits_for_a_barrier()) {
    return std::nullopt;
  }
  next_heartbeat_ns_ = now_ns + settings_.heartbeat_ns;
  if (!syncs_waiting_.empty()) no_sync_before_ns_ = now_ns + settings_.sync_gap_ns;
  barrier_ = Barrier{++barrier_number_, now_ns, std::exchange(syncs_waiting_, {})};
  return SendBarrier{barrier_->number};
}

std::optional<Refresh::Action> Refresh::next_work(std::int64_t now_ns) {
  if (work_ != Lane::kReady || !proven_listening_ || task_) return std::nullopt;
  if (round_.empty() && round_open_) {
    finish_round();
  }
  if (round_.empty() && !proofs_.empty() && proofs_.front().needs_applied <= applied_) {
    failures_ = 0;
    live_ = ever_live_ = true;
    Proof proof = std::move(proofs_.front());
    proofs_.pop_front();
    return prove(std::move(proof));
  }
  if (round_.empty() && !plan_round(now_ns)) return std::nullopt;
  task_ = std::move(round_.front());
  round_.pop_front();
  task_since_ns_ = now_ns;
  return std::visit([](const auto& task) -> Action { return task; }, *task_);
}

// One after the other, and only beside a conversation that is in step.
std::optional<Refresh::Action> Refresh::next_audit(std::int64_t now_ns) {
  if (!live_ || settings_.audit_ns == 0) return std::nullopt;
  if (now_ns >= next_audit_ns_) {
    if (audits_due_.empty() && !audit_) {
      for (std::size_t i = 0; i < sources_.size(); ++i) audits_due_.push_back(i);
    }
    plan_audit(now_ns);
  }
  if (audit_) {
    const bool settled =
        audit_->needs_applied && sources_[audit_->source].applied >= *audit_->needs_applied;
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

Refresh::Prove Refresh::prove(Proof proof) {
  Prove action{proof.boot_ns, {}, std::move(proof.syncs)};
  for (std::size_t i = 0; i < sources_.size(); ++i) {
    if (!sources_[i].suspended) action.sources.push_back(i);
  }
  if (action.sources.size() < sources_.size()) {
    syncs_held_.insert(syncs_held_.end(), action.syncs.begin(), action.syncs.end());
    action.syncs.clear();
  }
  return action;
}

// When a source that wants a load may have it. Never, for now: a barrier has to come back.
std::int64_t Refresh::load_due_ns(const Source& source) const {
  if (source.urgent) return 0;
  if (barrier_returned_ < source.reload_after) return std::numeric_limits<std::int64_t>::max();
  return source.no_reload_before_ns;
}

// For one that has not been sent.
bool Refresh::a_load_waits_for_a_barrier() const {
  return std::ranges::any_of(sources_, [this](const Source& source) {
    return source.reload && !source.urgent && source.reload_after > barrier_number_;
  });
}

// Takes everything that has been notified so far. A source whose reload has to wait does not reach
// what was notified; the others do, and it will in a later round.
bool Refresh::plan_round(std::int64_t now_ns) {
  for (std::size_t i = 0; i < sources_.size(); ++i) {
    if (sources_[i].suspended && now_ns >= sources_[i].retry_ns) {
      reload(i, LoadReason::kTriedAgain);
    }
  }
  if (applied_ == notified_) return false;
  for (std::size_t i = 0; i < sources_.size(); ++i) {
    Source& source = sources_[i];
    const bool must_wait = source.reload && now_ns < load_due_ns(source);
    source.reaches = must_wait ? source.applied : notified_;
    if (source.reload && !must_wait) {
      source.reload_was_urgent = source.urgent;
      source.reload = source.urgent = false;
      source.ids.clear();
      round_.emplace_back(Load{i, source.reason});
    }
    while (!source.ids.empty()) {
      Reread reread{i, {}};
      while (!source.ids.empty() && reread.ids.size() < settings_.reread_ids_max) {
        reread.ids.push_back(std::move(source.ids.extract(source.ids.begin()).value()));
      }
      round_.emplace_back(std::move(reread));
    }
  }
  round_open_ = true;
  if (round_.empty()) finish_round();
  return !round_.empty();
}

void Refresh::finish_round() {
  round_open_ = false;
  applied_ = notified_;
  for (Source& source : sources_) {
    source.applied = source.reaches;
    applied_ = std::min(applied_, source.applied);
  }
}

std::int64_t Refresh::wake_ns() const {
  std::int64_t wake = std::numeric_limits<std::int64_t>::max();
  if (listen_ == Lane::kReady) {
    wake = barrier_ ? barrier_->sent_ns + settings_.barrier_deadline_ns : next_heartbeat_ns_;
    if (!barrier_ && !syncs_waiting_.empty()) wake = std::min(wake, no_sync_before_ns_);
  }
  const bool reading_waits = !task_ && work_ == Lane::kReady && proven_listening_;
  if (reading_waits) {
    // Whatever could be read at once is under way: what is left waits for its time.
    for (const Source& source : sources_) {
      if (source.reload) wake = std::min(wake, load_due_ns(source));
      if (source.suspended) wake = std::min(wake, source.retry_ns);
    }
  }
  if (live_ && settings_.audit_ns > 0) wake = std::min(wake, next_audit_ns_);
  return wake;
}

// Jittered, so that the hosts of a fleet do not all read the table at once.
void Refresh::plan_audit(std::int64_t now_ns) {
  const std::int64_t tenth = settings_.audit_ns / 10;
  next_audit_ns_ = now_ns + settings_.audit_ns - tenth + random_up_to(2 * tenth);
}

std::int64_t Refresh::backoff_ns() {
  const int rounds = ++failures_ / std::max(1, settings_.hosts);
  // The next of several servers may be the new primary: it is tried at once.
  if (failures_ % std::max(1, settings_.hosts) != 0) return random_up_to(settings_.backoff_min_ns);
  const int doublings = std::min(rounds - 1, 16);
  const std::int64_t ceiling =
      std::min(settings_.backoff_max_ns, settings_.backoff_min_ns << doublings);
  // Half fixed, half random: many hosts that lost the same database come back one by one.
  return std::max(settings_.backoff_min_ns, ceiling / 2) + random_up_to(ceiling / 2);
}

std::int64_t Refresh::random_up_to(std::int64_t ns) {
  return std::uniform_int_distribution<std::int64_t>(0, ns)(random_);
}

// ---- for people

Refresh::State Refresh::state() const {
  if (listen_ != Lane::kReady || work_ != Lane::kReady) {
    return ever_live_ ? State::kLost : State::kConnecting;
  }
  if (!proven_listening_) return State::kListening;
  return live_ ? State::kLive : State::kLoading;
}

std::size_t Refresh::pending_ids() const {
  std::size_t pending = 0;
  for (const Source& source : sources_) pending += source.ids.size();
  return pending;
}

}  // namespace latchkey
