#include "keymap/quiescence.h"

#include <algorithm>
#include <stdexcept>

namespace latchkey {

Quiescence::Reader::Reader(Quiescence& quiescence) : quiescence_(quiescence), seat_(0) {
  for (; seat_ < kReadersMax; ++seat_) {
    std::uint64_t expected = kFree;
    if (quiescence_.seats_[seat_].epoch.compare_exchange_strong(expected, kOffline)) return;
  }
  throw std::length_error("more reader threads than Quiescence::kReadersMax");
}

Quiescence::Reader::~Reader() { quiescence_.seats_[seat_].epoch.store(kFree); }

std::uint64_t Quiescence::safe_before() const {
  std::uint64_t oldest = epoch_.load();
  for (const Seat& seat : seats_) {
    const std::uint64_t epoch = seat.epoch.load();
    if (epoch != kOffline && epoch != kFree) oldest = std::min(oldest, epoch);
  }
  return oldest;
}

}  // namespace latchkey
