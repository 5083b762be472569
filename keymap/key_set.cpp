#include "keymap/key_set.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <algorithm>
#include <cassert>

namespace latchkey {
namespace {

std::vector<std::uint8_t> encoded(latchkey_claim tag, std::string_view value) {
  std::vector<std::uint8_t> claim(LATCHKEY_CLAIM_BYTES + value.size());
  put_claim(claim.data(), tag, value);
  return claim;
}

// A key that several active rows of one source hold is nobody's: to answer with one of them would
// be to guess as whom its holder comes.
Record::Owner refusal_of(const Record& row) {
  RecordFacts facts;
  facts.digest = row.digest();
  facts.state = RowState::kDisabled;
  facts.key_id = row.key_id();
  return Record::make(facts);
}

}  // namespace

KeySet::KeySet(std::string source_name, Quiescence& quiescence)
    : name(std::move(source_name)),
      name_claim(encoded(LATCHKEY_CLAIM_SOURCE, name)),
      map(quiescence) {}

KeySetWriter::KeySetWriter(KeySet& keys, Quiescence& quiescence)
    : keys_(keys), quiescence_(quiescence) {}

KeySetWriter::~KeySetWriter() {
  for (const Record* record : index_) Record::Owner{record};
}

std::size_t KeySetWriter::IdHash::operator()(std::string_view key_id) const {
  return XXH3_64bits(key_id.data(), key_id.size());
}

// ---- scopes

std::size_t KeySetWriter::TextHash::operator()(std::string_view text) const {
  return XXH3_64bits(text.data(), text.size());
}

const ScopeSet* KeySetWriter::find_scopes(std::string_view text) const {
  const auto found = scope_spellings_.find(text);
  return found == scope_spellings_.end() ? nullptr : found->second;
}

const ScopeSet* KeySetWriter::intern_scopes(std::string_view text,
                                            const std::vector<std::string>& names) {
  std::string joined;
  for (const std::string& name : names) {
    if (!joined.empty()) joined += ' ';
    joined += name;
  }
  auto found = scopes_.find(joined);
  if (found == scopes_.end()) {
    auto set = std::make_unique<ScopeSet>();
    set->sorted = names;
    std::ranges::sort(set->sorted);
    set->claim = encoded(LATCHKEY_CLAIM_SCOPE, joined);
    found = scopes_.emplace(std::move(joined), std::move(set)).first;
  }
  scope_spellings_[std::string(text)] = found->second.get();
  return found->second.get();
}

// ---- one changed row

void KeySetWriter::upsert(Record::Owner record) {
  record->load_mark = load_mark_;  // a load that runs now must not take it for gone
  const auto found = index_.find(record->key_id());
  if (found == index_.end()) {
    const Record* added = record.release();
    index_.insert(added);
    link(added);
    return;
  }
  const Record* old = *found;
  if (old->same_as(*record)) {
    old->load_mark = load_mark_;
    return;
  }
  const Record* fresh = record.release();
  index_.erase(found);
  index_.insert(fresh);
  // Between two digests, the old one goes first: for an instant neither works, which is the safe
  // order.
  if (old->digest() == fresh->digest()) {
    supersede(old, fresh);
  } else {
    unlink(old);
    link(fresh);
  }
  retire(Record::Owner(old));
}

void KeySetWriter::remove(std::string_view key_id) {
  const auto found = index_.find(key_id);
  if (found == index_.end()) return;
  const Record* record = *found;
  index_.erase(found);
  unlink(record);
  retire(Record::Owner(record));
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
// the order in which they came.
void KeySetWriter::publish(Shared& shared) {
  Record::Owner old_refusal = std::move(shared.refusal);
  const Record* speaker =
      *std::ranges::max_element(shared.rows, [](const Record* a, const Record* b) {
        return std::pair(a->state(), b->key_id()) < std::pair(b->state(), a->key_id());
      });
  if (shared.rows.size() > 1 && speaker->state() == RowState::kActive) {
    shared.refusal = refusal_of(*speaker);
    speaker = shared.refusal.get();
  }
  keys_.map.replace(speaker);
  if (old_refusal) retire(std::move(old_refusal));
}

// ---- the whole table

void KeySetWriter::begin_load() {
  abandon_load();
  ++load_mark_;
}

void KeySetWriter::load(Record::Owner record) {
  ++staged_rows_;
  const auto found = index_.find(record->key_id());
  if (found != index_.end() && (*found)->same_as(*record)) {
    (*found)->load_mark = load_mark_;
    return;
  }
  record->load_mark = load_mark_;
  staged_.push_back(std::move(record));
}

LoadReport KeySetWriter::finish_load() {
  LoadReport report{.rows = staged_rows_};
  std::vector<std::string> gone;
  std::vector<Record::Owner> staged = std::move(staged_);
  staged_.clear();
  for (const Record::Owner& record : staged) {
    if (const auto found = index_.find(record->key_id()); found != index_.end()) {
      (*found)->load_mark = load_mark_;
      ++report.changed;
    } else {
      ++report.added;
    }
  }
  for (const Record* record : index_) {
    if (record->load_mark != load_mark_) gone.emplace_back(record->key_id());
  }
  report.removed = gone.size();
  index_.reserve(index_.size() + report.added);
  keys_.map.reserve(keys_.map.size() + report.added);

  // Refusals first, then what is gone, then what may come in. A row that is gone may have been the
  // one that refused a key which another row refuses from now on; and what is gone stops working
  // before anything new starts to.
  const auto active = std::partition(staged.begin(), staged.end(), [](const Record::Owner& record) {
    return record->state() != RowState::kActive;
  });
  for (auto it = staged.begin(); it != active; ++it) upsert(std::move(*it));
  for (const std::string& key_id : gone) remove(key_id);
  for (auto it = active; it != staged.end(); ++it) upsert(std::move(*it));
  staged_rows_ = 0;
  collect();
  return report;
}

void KeySetWriter::abandon_load() {
  staged_.clear();
  staged_.shrink_to_fit();
  staged_rows_ = 0;
}

// ---- the end of records

void KeySetWriter::retire(Record::Owner record) {
  retired_.push_back({quiescence_.stamp(), std::move(record)});
}

void KeySetWriter::collect() {
  keys_.map.collect();
  if (!retired_.empty()) {
    const std::uint64_t safe_before = quiescence_.safe_before();
    while (!retired_.empty() && retired_.front().stamp < safe_before) retired_.pop_front();
  }
  if (std::max(scopes_.size(), scope_spellings_.size()) > scopes_sweep_at_) sweep_scopes();
}

// A set without users has outlived its last record, and with it every reader that could reach it.
// Swept when their number has doubled: the cost stays constant for each set made.
void KeySetWriter::sweep_scopes() {
  scope_spellings_.clear();
  for (auto it = scopes_.begin(); it != scopes_.end();) {
    it = it->second->users == 0 ? scopes_.erase(it) : std::next(it);
  }
  scopes_sweep_at_ = std::max<std::size_t>(1024, 2 * scopes_.size());
}

}  // namespace latchkey
