#include "keymap/use_log.h"

#include <algorithm>

namespace latchkey {

UseLog::UseLog(std::size_t workers) {
  for (std::size_t i = 0; i < workers; ++i) rings_.push_back(std::make_unique<Ring>());
}

void UseLog::push(Ring& ring, const Record& record, const UseMoment& moment) {
  if (!ring.uses.push({record.digest(), moment.real_us})) {
    ring.deferred.store(ring.deferred.load(std::memory_order_relaxed) + 1,
                        std::memory_order_relaxed);
    return;
  }
  record.note_used(moment.tick);
  if (++ring.pushed % (kRoom / 2) == 0 && wake_) wake_();
}

bool UseLog::crowded() const {
  return std::ranges::any_of(
      rings_, [](const auto& ring) { return ring->uses.read_available() >= kRoom / 2; });
}

std::uint64_t UseLog::deferred() const {
  std::uint64_t sum = 0;
  for (const auto& ring : rings_) sum += ring->deferred.load(std::memory_order_relaxed);
  return sum;
}

}  // namespace latchkey
