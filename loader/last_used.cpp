#include "loader/last_used.h"

#include <algorithm>

namespace latchkey {

void PendingUses::add(std::string_view id, std::int64_t real_us) {
  auto& by_id = rows_.get<1>();
  const auto known = by_id.find(id);
  if (known == by_id.end()) {
    if (rows_.size() >= limit_) {
      rows_.pop_front();
      ++dropped_;
    }
    rows_.push_back({std::string(id), real_us});
    return;
  }
  // Several workers report, so uses of one row may come out of order.
  if (known->real_us >= real_us) return;
  by_id.modify(known, [real_us](UsedRow& row) { row.real_us = real_us; });
  rows_.relocate(rows_.end(), rows_.project<0>(known));
}

UsedRows PendingUses::take(std::size_t most) {
  UsedRows taken;
  taken.reserve(std::min(most, rows_.size()));
  while (taken.size() < most && !rows_.empty()) {
    taken.push_back(rows_.front());
    rows_.pop_front();
  }
  return taken;
}

void PendingUses::give_back(UsedRows rows) {
  // In reverse, so that the first row is first again. If there is no room for all, these are the
  // oldest.
  for (auto row = rows.rbegin(); row != rows.rend(); ++row) {
    const bool known = rows_.get<1>().contains(std::string_view(row->id));
    if (known) continue;
    if (rows_.size() >= limit_) {
      ++dropped_;
    } else {
      rows_.push_front(std::move(*row));
    }
  }
}

void LastUsedRounds::written() {
  failures_ = 0;
  batch_ = std::min(kBatchMax, 2 * batch_);
}

void LastUsedRounds::failed(std::int64_t now_ns, std::size_t refused) {
  if (refused > 0) batch_ = std::max<std::size_t>(1, refused / 2);
  const std::int64_t longest = std::min(kBackoffMaxNs, kBackoffMinNs << std::min(failures_, 6));
  ++failures_;
  // Between half of the delay and all of it, so that daemons do not reconnect at the same time;
  // never sooner than the regular next round.
  const auto part = static_cast<std::int64_t>(random_() % static_cast<std::uint64_t>(longest / 2));
  next_ns_ = std::max(next_ns_, now_ns + longest / 2 + part);
}

}  // namespace latchkey
