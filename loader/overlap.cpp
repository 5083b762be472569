#include "loader/overlap.h"

#include <algorithm>
#include <array>
#include <mutex>
#include <span>

namespace latchkey {

OverlapWalk::OverlapWalk(const KeySetWriter& rows, const std::vector<const KeySet*>& others)
    : rows_(rows) {
  for (const KeySet* other : others) shared_.push_back({other, 0});
  batch_.reserve(KeyMap::kBatchMax);
}

bool OverlapWalk::step(Quiescence& quiescence) {
  if (part_ >= rows_.row_parts() || shared_.empty()) return false;
  // Walks of all loaders take turns, so that together they never need more than one reader's seat.
  static std::mutex turn;
  const std::lock_guard lock(turn);
  Quiescence::Reader reader(quiescence, "lint");
  const ReadSection section(reader);
  rows_.for_each_row_of_part(part_, [this](const Record* record) {
    __builtin_prefetch(record);
    batch_.push_back(record);
    if (batch_.size() == KeyMap::kBatchMax) look_up();
  });
  look_up();
  return ++part_ < rows_.row_parts();
}

void OverlapWalk::look_up() {
  std::array<Digest, KeyMap::kBatchMax> digests;
  std::array<const Record*, KeyMap::kBatchMax> found{};
  for (std::size_t i = 0; i < batch_.size(); ++i) digests[i] = batch_[i]->digest();
  for (Shared& shared : shared_) {
    shared.with->map.find(std::span(digests).first(batch_.size()), found);
    shared.rows += static_cast<std::uint64_t>(
        std::count_if(found.begin(), found.begin() + static_cast<std::ptrdiff_t>(batch_.size()),
                      [](const Record* record) { return record != nullptr; }));
  }
  batch_.clear();
}

}  // namespace latchkey
