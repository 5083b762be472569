#include "keymap/quiescence.h"

#include <algorithm>
#include <stdexcept>
#include <utility>

namespace latchkey {

Quiescence::Reader::Reader(Quiescence& quiescence, std::string name)
    : quiescence_(quiescence), seat_(0) {
  const std::lock_guard lock(quiescence_.names_mutex_);
  while (seat_ < kReadersMax && quiescence_.seats_[seat_].epoch.load() != kFree) ++seat_;
  if (seat_ == kReadersMax) {
    throw std::length_error("more reader threads than Quiescence::kReadersMax");
  }
  quiescence_.names_[seat_] = std::move(name);
  quiescence_.seats_[seat_].epoch.store(kOffline);
}

Quiescence::Reader::~Reader() {
  const std::lock_guard lock(quiescence_.names_mutex_);
  quiescence_.seats_[seat_].epoch.store(kFree);
}

std::uint64_t Quiescence::safe_before() const {
  std::uint64_t oldest = epoch_.load();
  for (const Seat& seat : seats_) {
    const std::uint64_t epoch = seat.epoch.load();
    if (epoch != kOffline) oldest = std::min(oldest, epoch);  // kFree is the largest
  }
  return oldest;
}

std::vector<std::string> Quiescence::holders_of(std::uint64_t stamp) const {
  const std::lock_guard lock(names_mutex_);
  std::vector<std::string> names;
  for (std::size_t i = 0; i < kReadersMax; ++i) {
    const std::uint64_t epoch = seats_[i].epoch.load();
    if (epoch != kOffline && epoch <= stamp) names.push_back(names_[i]);
  }
  return names;
}

std::optional<StallWatch::Stall> StallWatch::look(const Quiescence& quiescence,
                                                  std::optional<std::uint64_t> oldest,
                                                  std::int64_t now_ns) {
  if (oldest != waiting_) {
    waiting_ = oldest;
    since_ns_ = now_ns;
  }
  if (!waiting_ || now_ns - since_ns_ < kLimitNs) return std::nullopt;
  Stall stall{quiescence.holders_of(*waiting_), now_ns - since_ns_};
  if (stall.readers.empty()) return std::nullopt;  // the section has just ended
  return stall;
}

}  // namespace latchkey
