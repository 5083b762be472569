#include "daemon/server/admission.h"

#include <algorithm>
#include <cassert>

namespace latchkey {
namespace {

// The minimum idle timeout: a caller that asks once a second keeps its connection even if few are
// left.
constexpr std::int64_t kIdleMinNs = 1'000'000'000;
// The reserve is this fraction (1/8) of the memory for waiting replies.
constexpr std::size_t kReservedPart = 8;

std::size_t less(std::size_t all, std::size_t taken) { return all - std::min(all, taken); }

}  // namespace

void Admission::set_limits(const LimitOptions& limits) {
  const std::lock_guard lock(mutex_);
  limits_ = limits;
}

LimitOptions Admission::limits() const {
  const std::lock_guard lock(mutex_);
  return limits_;
}

Admitted Admission::enter(const CallerId& id) {
  const std::lock_guard lock(mutex_);
  const bool reserved = id.share.kind == Share::Kind::kReserve;
  Use& use = uses_[id.share];
  const bool full = connections_ >= limits_.connections;
  if (full && !(reserved && use.connections < kReserved)) return Admitted::kTooManyConnections;
  Caller& caller = callers_[id];
  if (caller.connections >= connections_for(id, caller, use)) {
    ++caller.refused;
    return Admitted::kOverQuota;
  }
  ++caller.connections;
  ++use.connections;
  ++connections_;
  if (callers_.size() > kCallersKept) forget_some();
  return Admitted::kYes;
}

// The number of connections that this caller may have. A uid without a connection may have one as
// long as its rule has any left.
std::size_t Admission::connections_for(const CallerId& id, const Caller& caller,
                                       const Use& use) const {
  if (id.share.kind == Share::Kind::kReserve) {
    return less(std::max(limits_.connections_per_uid, kReserved),
                use.connections - caller.connections);
  }
  const std::size_t left = less(limits_.connections_per_uid, use.connections - caller.connections);
  return id.share.has_many_uids() ? (left + 1) / 2 : left;
}

void Admission::leave(const CallerId& id) {
  const std::lock_guard lock(mutex_);
  Caller& caller = callers_[id];
  Use& use = uses_[id.share];
  assert(caller.connections > 0 && use.connections > 0 && connections_ > 0);
  --caller.connections;
  --use.connections;
  --connections_;
}

std::size_t Admission::connections() const {
  const std::lock_guard lock(mutex_);
  return connections_;
}

bool Admission::hold(const CallerId& id, std::size_t bytes) {
  const std::lock_guard lock(mutex_);
  Caller& caller = callers_[id];
  Use& use = uses_[id.share];
  if (caller.waiting_bytes + bytes > bytes_for(id, caller, use)) return false;
  caller.waiting_bytes += bytes;
  use.waiting_bytes += bytes;
  waiting_bytes_ += bytes;
  return true;
}

std::size_t Admission::bytes_for(const CallerId& id, const Caller& caller, const Use& use) const {
  std::size_t of_share = less(limits_.reply_memory, waiting_bytes_ - use.waiting_bytes) / 2;
  if (id.share.kind == Share::Kind::kReserve) {
    of_share = std::max(of_share, limits_.reply_memory / kReservedPart);
  }
  const std::size_t left = less(of_share, use.waiting_bytes - caller.waiting_bytes);
  return id.share.has_many_uids() ? left / 2 : left;
}

void Admission::free(const CallerId& id, std::size_t bytes) {
  const std::lock_guard lock(mutex_);
  Caller& caller = callers_[id];
  Use& use = uses_[id.share];
  assert(caller.waiting_bytes >= bytes && use.waiting_bytes >= bytes);
  caller.waiting_bytes -= bytes;
  use.waiting_bytes -= bytes;
  waiting_bytes_ -= bytes;
}

std::size_t Admission::waiting_bytes() const {
  const std::lock_guard lock(mutex_);
  return waiting_bytes_;
}

// With up to half of the connections in use, the idle timeout is the configured one. Above that it
// falls to a hundredth when all are in use (Unbound uses the same scheme for its buffers).
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

std::uint64_t Admission::count_unknown(const CallerId& id, std::uint64_t keys) {
  const std::lock_guard lock(mutex_);
  return callers_[id].unknown += keys;
}

void Admission::forget_some() {
  const auto idle = [](const auto& known) {
    return known.second.connections == 0 && known.second.waiting_bytes == 0;
  };
  std::erase_if(callers_, idle);
  std::erase_if(uses_, idle);
}

std::vector<std::pair<uid_t, Admission::Caller>> Admission::callers() const {
  const std::lock_guard lock(mutex_);
  std::map<uid_t, Caller> by_uid;
  for (const auto& [id, caller] : callers_) {
    Caller& sum = by_uid[id.uid];
    sum.connections += caller.connections;
    sum.waiting_bytes += caller.waiting_bytes;
    sum.refused += caller.refused;
    sum.unknown += caller.unknown;
  }
  return {by_uid.begin(), by_uid.end()};
}

}  // namespace latchkey
