#include "keymap/key_set.h"

#include <algorithm>
#include <utility>

namespace latchkey {
namespace {

std::vector<std::uint8_t> encoded(latchkey_claim tag, std::string_view value) {
  std::vector<std::uint8_t> claim(LATCHKEY_CLAIM_BYTES + value.size());
  put_claim(claim.data(), tag, value);
  return claim;
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
          .waiting = retired_bytes_,
          .waiting_records = retired_.size()};
}

// ---- one changed row

void KeySetWriter::upsert(const RecordFacts& facts) {
  const Record* known = index_.find(facts.key_id);
  if (known != nullptr && known->says(facts)) {
    known->mark(load_mark_);
  } else {
    install(known, make(facts));
  }
}

// `old` is what the index has for the row of `fresh`, null if nothing.
void KeySetWriter::install(const Record* old, const Record* fresh) {
  if (old == nullptr) {
    index_.insert(fresh);
    link(fresh);
    return;
  }
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
}

void KeySetWriter::remove(std::string_view key_id) {
  if (const Record* record = index_.find(key_id)) remove(record);
}

void KeySetWriter::remove(const Record* record) {
  index_.erase(record);
  unlink(record);
  retire(record);
}

// ---- which row speaks for a digest

void KeySetWriter::link(const Record* record) {
  if (const auto found = shared_.find(record->digest()); found != shared_.end()) {
    found.value().rows.push_back(record);
    publish(found.value());
    return;
  }
  const Record* present = keys_.map.insert(record);
  if (present == nullptr) return;
  Shared& shared = shared_[record->digest()];
  shared.rows = {present, record};
  publish(shared);
}

void KeySetWriter::unlink(const Record* record) {
  const auto found = shared_.find(record->digest());
  if (found == shared_.end()) {
    keys_.map.erase(record->digest());
    return;
  }
  Shared& shared = found.value();
  std::erase(shared.rows, record);
  publish(shared);
  if (shared.rows.size() == 1) shared_.erase(found);
}

// The same digest, in place. Unlinking the old record and linking the new one would, where several
// rows hold the digest, let the others speak for an instant: an active one beside a revoked one.
void KeySetWriter::supersede(const Record* old, const Record* fresh) {
  const auto found = shared_.find(fresh->digest());
  if (found == shared_.end()) {
    keys_.map.replace(fresh);
    return;
  }
  std::ranges::replace(found.value().rows, old, fresh);
  publish(found.value());
}

// One row left: it speaks. Several: a refusing one before any active one, and the same one whatever
// the order in which they came. A key that several active rows hold is nobody's: to answer with one
// of them would be to guess as whom its holder comes.
void KeySetWriter::publish(Shared& shared) {
  const Record* old_refusal = std::exchange(shared.refusal, nullptr);
  const Record* speaker =
      *std::ranges::max_element(shared.rows, [](const Record* a, const Record* b) {
        return std::pair(a->state(), b->key_id()) < std::pair(b->state(), a->key_id());
      });
  if (shared.rows.size() > 1 && speaker->state() == RowState::kActive) {
    RecordFacts refusal;
    refusal.digest = speaker->digest();
    refusal.state = RowState::kDisabled;
    refusal.key_id = speaker->key_id();
    speaker = shared.refusal = make(refusal);
  }
  keys_.map.replace(speaker);
  if (old_refusal != nullptr) retire(old_refusal);
}

// ---- the whole table

void KeySetWriter::begin_load() {
  abandon_load();
  ++load_mark_;
}

void KeySetWriter::load(const RecordFacts& facts) {
  ++staged_rows_;
  const Record* known = index_.find(facts.key_id);
  if (known != nullptr && known->says(facts)) {
    known->mark(load_mark_);
  } else {
    staged_.push_back(make(facts));
  }
}

LoadReport KeySetWriter::finish_load() {
  LoadReport report{.rows = staged_rows_};
  std::vector<const Record*> staged = std::move(staged_);
  staged_.clear();
  staged_rows_ = 0;
  for (const Record* record : staged) {
    if (const Record* known = index_.find(record->key_id())) {
      known->mark(load_mark_);
      ++report.changed;
    } else {
      ++report.added;
    }
  }
  std::vector<const Record*> gone;
  index_.for_each([&](const Record* record) {
    if (record->load_mark() != load_mark_) gone.push_back(record);
  });
  report.removed = gone.size();

  // Refusals first, then what is gone, then what may come in. A row that is gone may have been the
  // one that refused a key which another row refuses from now on; and what is gone stops working
  // before anything new starts to.
  const auto active = std::partition(staged.begin(), staged.end(), [](const Record* record) {
    return record->state() != RowState::kActive;
  });
  const auto install_it = [&](const Record* record) {
    install(index_.find(record->key_id()), record);
  };
  std::for_each(staged.begin(), active, install_it);
  for (const Record* record : gone) remove(record);
  std::for_each(active, staged.end(), install_it);
  collect();
  return report;
}

void KeySetWriter::abandon_load() {
  for (const Record* record : staged_) destroy(record);
  staged_.clear();
  staged_.shrink_to_fit();
  staged_rows_ = 0;
}

}  // namespace latchkey
