#include "keymap/key_set.h"

#include <algorithm>
#include <array>
#include <cassert>
#include <span>
#include <utility>

namespace latchkey {
namespace {

std::vector<std::uint8_t> encoded(latchkey_claim tag, std::string_view value) {
  std::vector<std::uint8_t> claim(LATCHKEY_CLAIM_BYTES + value.size());
  put_claim(claim.data(), tag, value);
  return claim;
}

// Of rows that share a digest, so many are named where somebody asks why it is refused.
constexpr std::size_t kNamedRowsMax = 8;
constexpr std::size_t kNamedBytesMax = 512;

// Their ids, a zero byte between two (no PostgreSQL text holds one); an empty one stands for
// some left out.
std::string names_of(const std::vector<const Record*>& rows) {
  std::string names;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    if (i > 0) names += '\0';
    const std::string_view id = rows[i]->key_id();
    if (i == kNamedRowsMax) break;
    if (names.size() + id.size() <= kNamedBytesMax) names += id;
  }
  return names;
}

constexpr std::size_t kCollectEvery = 1024;  // rows of a load that were dealt with

}  // namespace

KeySet::KeySet(std::string source_name, Quiescence& quiescence)
    : name(std::move(source_name)),
      name_claim(encoded(LATCHKEY_CLAIM_SOURCE, name)),
      map(quiescence) {}

KeySetWriter::KeySetWriter(KeySet& keys, Quiescence& quiescence)
    : keys_(keys), quiescence_(quiescence) {}

// ---- records

const Record* KeySetWriter::make(const RecordFacts& facts) {
  const SharedClaim* tenant = facts.tenant ? tenants_.intern(*facts.tenant) : nullptr;
  const Record* record = Record::make(slab_, facts, tenant);
  record->mark(load_mark_);  // a load that runs now must not take it for gone
  return record;
}

void KeySetWriter::destroy(const Record* record) {
  const SharedClaim* tenant = record->tenant();
  Record::destroy(slab_, record);
  if (tenant != nullptr) tenants_.released(tenant);
}

void KeySetWriter::retire(const Record* record) {
  retired_.push_back({quiescence_.stamp(), record});
  retired_bytes_ += Slab::rounded(record->allocated_bytes());
}

void KeySetWriter::collect() {
  keys_.map.collect();
  if (!retired_.empty()) {
    const std::uint64_t safe_before = quiescence_.safe_before();
    for (; !retired_.empty() && retired_.front().stamp < safe_before; retired_.pop_front()) {
      retired_bytes_ -= Slab::rounded(retired_.front().record->allocated_bytes());
      destroy(retired_.front().record);
    }
  }
  scopes_.sweep();
}

std::optional<std::uint64_t> KeySetWriter::oldest_retired() const {
  std::optional<std::uint64_t> oldest = keys_.map.oldest_retired();
  if (!retired_.empty() && (!oldest || retired_.front().stamp < *oldest)) {
    oldest = retired_.front().stamp;
  }
  return oldest;
}

KeySetMemory KeySetWriter::memory() const {
  return {.records = slab_.mapped_bytes(),
          .map = keys_.map.memory().mapped_bytes(),
          .index = index_.bytes() + tenants_.index_bytes(),
          .waiting = retired_bytes_ + keys_.map.retired_bytes(),
          .waiting_records = retired_.size()};
}

void KeySetWriter::rows_of(std::span<const Digest> digests, std::span<const Record*> rows) const {
  keys_.map.find(digests, rows);
  for (std::size_t i = 0; i < digests.size() && !shared_.empty(); ++i) {
    if (shared_.contains(digests[i])) rows[i] = nullptr;
  }
}

// ---- one changed row

void KeySetWriter::upsert(const RecordFacts& facts) noexcept {
  const Record* known = index_.find(facts.key_id);
  if (known != nullptr && known->says(facts)) {
    known->mark(load_mark_);
  } else {
    install(make(facts));
  }
}

// True if its row was not known.
bool KeySetWriter::install(const Record* fresh) noexcept {
  sums_.add(fresh->row_hash());
  const Record* old = index_.insert(fresh);
  if (old == nullptr) {
    link(fresh);
    return true;
  }
  sums_.remove(old->row_hash());
  index_.replace(old, fresh);
  // Between two digests, the old one goes first: for an instant neither works, which is the safe
  // order.
  if (old->digest() == fresh->digest()) {
    supersede(old, fresh);
  } else {
    unlink(old);
    link(fresh);
  }
  retire(old);
  return false;
}

void KeySetWriter::remove(std::string_view key_id) noexcept {
  if (const Record* record = index_.find(key_id)) remove(record);
}

void KeySetWriter::remove(const Record* record) noexcept {
  sums_.remove(record->row_hash());
  index_.erase(record);
  unlink(record);
  retire(record);
}

// ---- which row speaks for a digest

void KeySetWriter::link(const Record* record) noexcept {
  if (!shared_.empty()) {  // nearly always it is, and its hash takes as long as the map's
    if (const auto found = shared_.find(record->digest()); found != shared_.end()) {
      found.value().rows.push_back(record);
      publish(found.value(), *record);
      return;
    }
  }
  const Record* present = keys_.map.insert(record);
  if (present == nullptr) return;
  Shared& shared = shared_[record->digest()];
  shared.rows = {present, record};
  publish(shared, *record);
}

void KeySetWriter::unlink(const Record* record) noexcept {
  const auto found = shared_.find(record->digest());
  if (found == shared_.end()) {
    keys_.map.erase(record->digest());
    return;
  }
  Shared& shared = found.value();
  std::erase(shared.rows, record);
  publish(shared, *record);
  if (shared.rows.size() > 1) return;
  if (in_batch_) {
    unsettled_.push_back(record->digest());
  } else {
    shared_.erase(found);
  }
}

// The same digest, in place. Unlinking the old record and linking the new one would, where several
// rows hold the digest, let the others speak for an instant: an active one beside a revoked one.
void KeySetWriter::supersede(const Record* old, const Record* fresh) noexcept {
  const auto found = shared_.find(fresh->digest());
  if (found == shared_.end()) {
    keys_.map.replace(fresh);
    return;
  }
  std::ranges::replace(found.value().rows, old, fresh);
  publish(found.value(), *fresh);
}

// One row left: it speaks. Several: a refusing one before any active one, and the same one whatever
// the order in which they came. A key that several active rows hold is nobody's: to answer with one
// of them would be to guess as whom its holder comes. And in a batch nobody knows yet who is left.
// `changed` is the row for whose sake this is done.
void KeySetWriter::publish(Shared& shared, const Record& changed) noexcept {
  const Record* old_refusal = std::exchange(shared.refusal, nullptr);
  const Record* speaker = nullptr;
  for (const Record* row : shared.rows) {
    if (speaker == nullptr ||
        std::pair(speaker->state(), row->key_id()) < std::pair(row->state(), speaker->key_id())) {
      speaker = row;
    }
  }
  if (speaker == nullptr ||
      (speaker->state() == RowState::kActive && (shared.rows.size() > 1 || in_batch_))) {
    RecordFacts refusal;
    refusal.digest = changed.digest();
    refusal.state = RowState::kDisabled;
    refusal.key_id = (speaker != nullptr ? *speaker : changed).key_id();
    const std::string names = names_of(shared.rows);
    refusal.stands_for = names;
    speaker = shared.refusal = make(refusal);
  }
  keys_.map.replace(speaker);
  if (old_refusal != nullptr) retire(old_refusal);
}

KeySetWriter::Batch::Batch(KeySetWriter& writer) : writer_(writer) { writer_.in_batch_ = true; }

KeySetWriter::Batch::~Batch() {
  writer_.in_batch_ = false;
  writer_.settle();
}

// What a batch has left with one row, or none.
void KeySetWriter::settle() noexcept {
  for (const Digest& digest : unsettled_) {
    const auto found = shared_.find(digest);
    if (found == shared_.end()) continue;
    Shared& shared = found.value();
    if (shared.rows.size() > 1) continue;
    if (shared.rows.empty()) {
      keys_.map.erase(digest);
      if (shared.refusal != nullptr) retire(shared.refusal);
    } else {
      publish(shared, *shared.rows.front());
    }
    shared_.erase(found);
  }
  unsettled_.clear();
}

// ---- the whole table

void KeySetWriter::begin_load() {
  abandon_load();
  report_ = {};
  began_empty_ = index_.size() == 0;
  if (++load_mark_ != 0) return;
  // The numbers begin anew. A record that was last seen so many loads ago, the later ones all
  // abandoned, would pass for seen by the load that has its number again.
  load_mark_ = 1;
  index_.for_each([](const Record* record) { record->mark(0); });
}

void KeySetWriter::begin_first_load(std::size_t expected_rows) {
  assert(!keys_.freshness.ever_proven());
  begin_load();
  if (expected_rows > 0) {
    keys_.map.reserve(expected_rows);
    index_.reserve(expected_rows);
  }
  as_they_come_ = true;
}

void KeySetWriter::load(const RecordFacts& facts, const Record* known) {
  ++report_.rows;
  if (known != nullptr && known->says(facts)) {
    known->mark(load_mark_);
    return;
  }
  staged_.push_back(nullptr);  // first, so that no record is ever forgotten
  staged_.back() = make(facts);
  if (as_they_come_ && staged_.size() == KeyMap::kBatchMax) {
    install_all(staged_);
    staged_.clear();
  }
}

LoadReport KeySetWriter::finish_load() noexcept {
  as_they_come_ = false;
  std::vector<const Record*> staged = std::move(staged_);
  staged_.clear();
  for (const Record* record : staged) {
    if (const Record* known = index_.find(record->key_id())) known->mark(load_mark_);
  }
  std::vector<const Record*> gone;
  if (!began_empty_) {
    index_.for_each([&](const Record* record) {
      if (record->load_mark() != load_mark_) gone.push_back(record);
    });
  }
  report_.removed = gone.size();

  // Refusals first, then what is gone, then what may come in: what is gone stops working before
  // anything new starts to.
  const auto active = std::partition(staged.begin(), staged.end(), [](const Record* record) {
    return record->state() != RowState::kActive;
  });
  // In between, too, what is outdated is freed: it serves what comes next.
  const auto in_parts = [&](std::span<const Record* const> records, const auto& each) {
    for (; !records.empty(); collect()) {
      const auto part = records.first(std::min(records.size(), kCollectEvery));
      each(part);
      records = records.subspan(part.size());
    }
  };
  const auto installs = [&](std::span<const Record* const> part) { install_all(part); };
  {
    const Batch batch(*this);
    const auto refusing = static_cast<std::size_t>(active - staged.begin());
    in_parts(std::span(staged).first(refusing), installs);
    in_parts(gone, [&](std::span<const Record* const> part) {
      for (const Record* record : part) remove(record);
    });
    in_parts(std::span(staged).subspan(refusing), installs);
  }
  collect();
  return report_;
}

void KeySetWriter::install_all(std::span<const Record* const> records) noexcept {
  while (!records.empty()) {
    const auto next = records.first(std::min(records.size(), KeyMap::kBatchMax));
    warm_up(next);
    for (const Record* record : next) ++(install(record) ? report_.added : report_.changed);
    records = records.subspan(next.size());
  }
}

// Brings what install() will look at into the cache, for several records at a time, so that they do
// not wait for memory one after the other.
void KeySetWriter::warm_up(std::span<const Record* const> records) const {
  std::array<Digest, KeyMap::kBatchMax> digests;
  std::array<std::string_view, KeyMap::kBatchMax> key_ids;
  std::array<const Record*, KeyMap::kBatchMax> found;
  for (std::size_t i = 0; i < records.size(); ++i) {
    digests[i] = records[i]->digest();
    key_ids[i] = records[i]->key_id();
  }
  index_.find(std::span<const std::string_view>(key_ids).first(records.size()), found);
  // The result is of no use; the compiler must not find that out.
  __asm__ volatile("" : : "r"(found.data()) : "memory");
  keys_.map.find(std::span(digests).first(records.size()), found);
}

void KeySetWriter::abandon_load() {
  for (const Record* record : staged_) {
    if (record != nullptr) destroy(record);
  }
  staged_.clear();
  staged_.shrink_to_fit();
  as_they_come_ = false;
}

}  // namespace latchkey
