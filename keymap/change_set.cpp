#include "keymap/change_set.h"

#include <algorithm>
#include <cassert>
#include <utility>

namespace latchkey {
namespace {

constexpr std::size_t kCollectEvery = 1024;  // rows between two calls of collect()

}  // namespace

ChangeSet::ChangeSet(KeySetWriter& writer, ChangeScope scope, std::size_t expected_rows)
    : writer_(writer), scope_(scope), began_empty_(writer.rows() == 0) {
  if (scope == ChangeScope::kRows) return;
  load_mark_ = writer_.next_load_mark();
  if (scope == ChangeScope::kTable) return;
  assert(!writer_.keys_.freshness.ever_proven());
  if (expected_rows == 0) return;
  writer_.keys_.map.reserve(expected_rows);
  writer_.index_.reserve(expected_rows);
}

ChangeSet::~ChangeSet() {
  for (const Record* record : staged_) {
    if (record != nullptr) writer_.destroy(record);
  }
}

void ChangeSet::stage(const RecordFacts& facts, const Record* known) {
  ++report_.rows;
  if (known != nullptr && known->says(facts)) {
    known->mark(writer_.load_mark_);
    return;
  }
  staged_.push_back(nullptr);  // before make(): if push_back() throws, no record may leak
  staged_.back() = writer_.make(facts);
  if (scope_ == ChangeScope::kFirstTable && staged_.size() == KeyMap::kBatchMax) {
    install(staged_);
    staged_.clear();
  }
}

ChangeReport ChangeSet::apply() noexcept {
  // A later set has given the rows that this one has seen another mark: they would pass for gone.
  assert(scope_ == ChangeScope::kRows || load_mark_ == writer_.load_mark_);
  std::vector<const Record*> staged = std::exchange(staged_, {});
  const std::vector<const Record*> unseen = unseen_records(staged);

  // The order is: refusals, rows that are gone, active rows. So every refused or removed key stops
  // working before a new one starts to work.
  const auto active = std::partition(staged.begin(), staged.end(), [](const Record* record) {
    return record->state() != RowState::kActive;
  });
  const auto refusing = static_cast<std::size_t>(active - staged.begin());
  const KeySetWriter::Batch batch(writer_);
  in_parts(std::span(staged).first(refusing), [this](auto part) { install(part); });
  in_parts(unseen, [this](auto part) {
    for (const Record* record : part) writer_.remove(record);
  });
  for (const std::string& key_id : gone_) {
    const Record* known = writer_.find(key_id);
    if (known == nullptr) continue;
    writer_.remove(known);
    ++report_.removed;
  }
  in_parts(std::span(staged).subspan(refusing), [this](auto part) { install(part); });
  report_.removed += unseen.size();
  return report_;
}

// Calls `each` for parts of `records`. For whole tables it frees outdated records in between, so
// that later records reuse their memory.
template <typename Each>
void ChangeSet::in_parts(std::span<const Record* const> records, const Each& each) {
  while (!records.empty()) {
    const auto part = records.first(std::min(records.size(), kCollectEvery));
    each(part);
    records = records.subspan(part.size());
    if (scope_ != ChangeScope::kRows) writer_.collect();
  }
}

// For a whole table, returns the records whose rows were not staged.
std::vector<const Record*> ChangeSet::unseen_records(std::span<const Record* const> staged) {
  std::vector<const Record*> unseen;
  if (scope_ == ChangeScope::kRows) return unseen;
  for (const Record* record : staged) {
    if (const Record* known = writer_.find(record->key_id())) known->mark(writer_.load_mark_);
  }
  if (began_empty_) return unseen;
  writer_.index_.for_each([&](const Record* record) {
    if (record->load_mark() != writer_.load_mark_) unseen.push_back(record);
  });
  return unseen;
}

void ChangeSet::install(std::span<const Record* const> records) noexcept {
  while (!records.empty()) {
    const auto next = records.first(std::min(records.size(), KeyMap::kBatchMax));
    writer_.warm_up(next);
    for (const Record* record : next) {
      ++(writer_.install(record) ? report_.added : report_.changed);
    }
    records = records.subspan(next.size());
  }
}

}  // namespace latchkey
