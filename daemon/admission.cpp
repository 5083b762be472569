#include "daemon/admission.h"

#include <algorithm>
#include <cassert>

namespace latchkey {
namespace {

// However few connections are left: a caller that asks once a second keeps its own.
constexpr std::int64_t kIdleMinNs = 1'000'000'000;

}  // namespace

void Admission::set_limits(const LimitOptions& limits) {
  const std::lock_guard lock(mutex_);
  limits_ = limits;
}

LimitOptions Admission::limits() const {
  const std::lock_guard lock(mutex_);
  return limits_;
}

Admitted Admission::enter(uid_t uid) {
  const std::lock_guard lock(mutex_);
  if (connections_ >= limits_.connections) return Admitted::kTooManyConnections;
  Caller& caller = callers_[uid];
  if (caller.connections >= limits_.connections_per_uid) {
    ++caller.refused;
    return Admitted::kTooManyOfThisUid;
  }
  ++caller.connections;
  ++connections_;
  if (callers_.size() > kCallersKept) forget_some();
  return Admitted::kYes;
}

void Admission::leave(uid_t uid) {
  const std::lock_guard lock(mutex_);
  Caller& caller = callers_[uid];
  assert(caller.connections > 0 && connections_ > 0);
  --caller.connections;
  --connections_;
}

std::size_t Admission::connections() const {
  const std::lock_guard lock(mutex_);
  return connections_;
}

bool Admission::hold(uid_t uid, std::size_t bytes) {
  const std::lock_guard lock(mutex_);
  Caller& caller = callers_[uid];
  const std::size_t others = waiting_bytes_ - caller.waiting_bytes;
  const std::size_t left = limits_.reply_memory - std::min(limits_.reply_memory, others);
  if (caller.waiting_bytes + bytes > left / 2) return false;
  caller.waiting_bytes += bytes;
  waiting_bytes_ += bytes;
  return true;
}

void Admission::free(uid_t uid, std::size_t bytes) {
  const std::lock_guard lock(mutex_);
  Caller& caller = callers_[uid];
  assert(caller.waiting_bytes >= bytes);
  caller.waiting_bytes -= bytes;
  waiting_bytes_ -= bytes;
}

std::size_t Admission::waiting_bytes() const {
  const std::lock_guard lock(mutex_);
  return waiting_bytes_;
}

// Half of the connections in use: as configured. From there on it falls, to a hundredth where all
// are (Unbound does likewise with its buffers).
std::int64_t Admission::idle_timeout_ns() const {
  const std::lock_guard lock(mutex_);
  const std::int64_t whole = limits_.idle_timeout.count();
  const std::size_t half = limits_.connections / 2;
  if (connections_ <= half) return whole;
  const double left =
      static_cast<double>(limits_.connections - std::min(connections_, limits_.connections)) /
      static_cast<double>(limits_.connections - half);
  const auto shorter =
      static_cast<std::int64_t>(static_cast<double>(whole) * std::max(left * left, 0.01));
  return std::min(whole, std::max(shorter, kIdleMinNs));
}

std::uint64_t Admission::count_unknown(uid_t uid, std::uint64_t keys) {
  const std::lock_guard lock(mutex_);
  return callers_[uid].unknown += keys;
}

void Admission::forget_some() {
  std::erase_if(callers_, [](const auto& known) {
    return known.second.connections == 0 && known.second.waiting_bytes == 0;
  });
}

std::vector<std::pair<uid_t, Admission::Caller>> Admission::callers() const {
  const std::lock_guard lock(mutex_);
  return {callers_.begin(), callers_.end()};
}

}  // namespace latchkey
