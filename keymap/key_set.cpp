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

// Limits on the ids that a refusing record names for rows with the same digest (see `why`).
constexpr std::size_t kNamedRowsMax = 8;
constexpr std::size_t kNamedBytesMax = 512;

// The ids of the rows, separated by zero bytes (no PostgreSQL text holds one). An empty id stands
// for omitted ids.
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
  record->mark(load_mark_);  // a load in progress must not treat the record as gone
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

// Returns true if the row was not known before.
bool KeySetWriter::install(const Record* fresh) noexcept {
  sums_.add(fresh->row_hash());
  const Record* old = index_.insert(fresh);
  if (old == nullptr) {
    link(fresh);
    return true;
  }
  sums_.remove(old->row_hash());
  index_.replace(old, fresh);
  // If the digest changes, the old digest is unlinked first. For an instant neither digest works,
  // which is the safe order.
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

// ---- the deciding row of a digest

void KeySetWriter::link(const Record* record) noexcept {
  if (!shared_.empty()) {  // it is nearly always empty, and its hash takes as long as the map's
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

// Replaces a record by one with the same digest, in place. Where several rows hold the digest,
// unlinking the old record and then linking the new one would let the other rows decide for an
// instant: for example, an active row next to a revoked one.
void KeySetWriter::supersede(const Record* old, const Record* fresh) noexcept {
  const auto found = shared_.find(fresh->digest());
  if (found == shared_.end()) {
    keys_.map.replace(fresh);
    return;
  }
  std::ranges::replace(found.value().rows, old, fresh);
  publish(found.value(), *fresh);
}

// Publishes the deciding record of a shared digest. A single row decides. Among several rows, a
// refusing row decides before any active row, and the choice does not depend on the order in which
// the rows arrived. A key that several active rows hold is refused, because answering with one of
// them would guess the identity of the key's holder. During a batch, a single active row is
// refused, too, because the remaining rows are not known yet. `changed` is the row whose change led
// to the call; its digest is the shared one.
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

// Settles the digests that a batch has left with one row, or none.
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

// ---- change sets

std::uint8_t KeySetWriter::next_load_mark() {
  if (++load_mark_ == 0) {
    // The marks start again at 1. A record that was last seen 255 loads ago, with all later loads
    // abandoned, would count as seen by the load that has the same mark again. So all marks are
    // cleared.
    load_mark_ = 1;
    index_.for_each([](const Record* record) { record->mark(0); });
  }
  return load_mark_;
}

// Prefetches the data that install() reads, for several records at a time, so that their cache
// misses overlap.
void KeySetWriter::warm_up(std::span<const Record* const> records) const {
  std::array<Digest, KeyMap::kBatchMax> digests;
  std::array<std::string_view, KeyMap::kBatchMax> key_ids;
  std::array<const Record*, KeyMap::kBatchMax> found;
  for (std::size_t i = 0; i < records.size(); ++i) {
    digests[i] = records[i]->digest();
    key_ids[i] = records[i]->key_id();
  }
  index_.find(std::span<const std::string_view>(key_ids).first(records.size()), found);
  // The result is not used; this keeps the compiler from removing the look-up.
  __asm__ volatile("" : : "r"(found.data()) : "memory");
  keys_.map.find(std::span(digests).first(records.size()), found);
}

}  // namespace latchkey
