#include "keymap/key_map.h"

#include <algorithm>
#include <bit>
#include <cassert>

namespace latchkey {
namespace {

constexpr std::uint64_t kEmpty = 0;
constexpr std::uint64_t kTombstone = 1;  // no record stands at address 1
constexpr int kTagShift = 48;            // user addresses on x86-64 and arm64 fit 48 bits
constexpr std::uint64_t kPointerMask = (std::uint64_t{1} << kTagShift) - 1;
constexpr std::size_t kSlotsMin = 64;

std::uint64_t word_of(std::uint64_t hash, const Record* record) {
  const auto address = reinterpret_cast<std::uint64_t>(record);
  assert((address & ~kPointerMask) == 0);
  return (hash & ~kPointerMask) | address;
}

const Record* record_of(std::uint64_t word) {
  return reinterpret_cast<const Record*>(word & kPointerMask);  // NOLINT(performance-no-int-to-ptr)
}

bool is_record(std::uint64_t word) { return (word & kPointerMask) > kTombstone; }

// Only words whose tag agrees are worth a look at the record: 1 in 65536 others gets one in vain.
bool tag_matches(std::uint64_t word, std::uint64_t hash) {
  return ((word ^ hash) & ~kPointerMask) == 0 && is_record(word);
}

}  // namespace

struct KeyMap::Table {
  explicit Table(std::size_t slots)
      : mask(slots - 1), words(std::make_unique<std::atomic<std::uint64_t>[]>(slots)) {
    assert(std::has_single_bit(slots));
  }
  // The slot comes from the hash's low bits, the tag from its high ones: they are independent.
  [[nodiscard]] std::size_t slot(std::uint64_t hash) const { return hash & mask; }
  [[nodiscard]] std::size_t next(std::size_t slot) const { return (slot + 1) & mask; }

  std::size_t mask;
  std::unique_ptr<std::atomic<std::uint64_t>[]> words;
};

KeyMap::KeyMap(Quiescence& quiescence, Hash hash)
    : quiescence_(quiescence), hash_(hash), table_(new Table(kSlotsMin)) {}

KeyMap::~KeyMap() { delete table_.load(); }

const Record* KeyMap::probe(const Table& table, std::uint64_t hash, const Digest& digest) {
  // Ends: at least half of the words are empty.
  for (std::size_t slot = table.slot(hash);; slot = table.next(slot)) {
    const std::uint64_t word = table.words[slot].load();
    if (word == kEmpty) return nullptr;
    if (tag_matches(word, hash) && record_of(word)->digest() == digest) return record_of(word);
  }
}

const Record* KeyMap::find(const Digest& digest) const {
  return probe(*table_.load(), hash_(digest), digest);
}

void KeyMap::find(std::span<const Digest> digests, std::span<const Record*> found) const {
  assert(digests.size() <= kBatchMax && found.size() >= digests.size());
  const Table& table = *table_.load();
  std::uint64_t hashes[kBatchMax];
  for (std::size_t i = 0; i < digests.size(); ++i) {
    hashes[i] = hash_(digests[i]);
    __builtin_prefetch(&table.words[table.slot(hashes[i])]);
  }
  for (std::size_t i = 0; i < digests.size(); ++i) {
    const std::uint64_t word = table.words[table.slot(hashes[i])].load();
    // A wrong guess (the key stands further on) costs one useless prefetch, nothing else.
    if (is_record(word)) __builtin_prefetch(record_of(word));
  }
  for (std::size_t i = 0; i < digests.size(); ++i) found[i] = probe(table, hashes[i], digests[i]);
}

const Record* KeyMap::insert(const Record* record) {
  if (2 * (used_ + 1) > slots()) rebuild(live_ + 1);
  Table& table = *table_.load(std::memory_order_relaxed);
  const std::uint64_t hash = hash_(record->digest());
  std::atomic<std::uint64_t>* tombstone = nullptr;
  for (std::size_t slot = table.slot(hash);; slot = table.next(slot)) {
    const std::uint64_t word = table.words[slot].load(std::memory_order_relaxed);
    if (tag_matches(word, hash) && record_of(word)->digest() == record->digest()) {
      return record_of(word);
    }
    if (word == kTombstone && tombstone == nullptr) tombstone = &table.words[slot];
    if (word != kEmpty) continue;
    ++live_;
    if (tombstone == nullptr) ++used_;
    (tombstone != nullptr ? *tombstone : table.words[slot]).store(word_of(hash, record));
    return nullptr;
  }
}

const Record* KeyMap::replace(const Record* record) {
  Table& table = *table_.load(std::memory_order_relaxed);
  const std::uint64_t hash = hash_(record->digest());
  for (std::size_t slot = table.slot(hash);; slot = table.next(slot)) {
    const std::uint64_t word = table.words[slot].load(std::memory_order_relaxed);
    assert(word != kEmpty && "replace() needs a record to replace");
    if (!tag_matches(word, hash) || !(record_of(word)->digest() == record->digest())) continue;
    table.words[slot].store(word_of(hash, record));
    return record_of(word);
  }
}

const Record* KeyMap::erase(const Digest& digest) {
  Table& table = *table_.load(std::memory_order_relaxed);
  const std::uint64_t hash = hash_(digest);
  for (std::size_t slot = table.slot(hash);; slot = table.next(slot)) {
    const std::uint64_t word = table.words[slot].load(std::memory_order_relaxed);
    if (word == kEmpty) return nullptr;
    if (!tag_matches(word, hash) || !(record_of(word)->digest() == digest)) continue;
    // A probe that would end at the next word anyway needs no tombstone to be led past this one.
    const bool last = table.words[table.next(slot)].load(std::memory_order_relaxed) == kEmpty;
    table.words[slot].store(last ? kEmpty : kTombstone);
    --live_;
    if (last) --used_;
    return record_of(word);
  }
}

void KeyMap::reserve(std::size_t count) {
  if (2 * (count + tombstones()) > slots()) rebuild(count);
}

void KeyMap::rebuild(std::size_t live_expected) {
  const Table& old = *table_.load(std::memory_order_relaxed);
  // A third full after the rebuild: room to grow by half before the next one.
  auto fresh = std::make_unique<Table>(std::max(kSlotsMin, std::bit_ceil(3 * live_expected)));
  for (std::size_t i = 0; i <= old.mask; ++i) {
    const std::uint64_t word = old.words[i].load(std::memory_order_relaxed);
    if (!is_record(word)) continue;
    std::size_t slot = fresh->slot(hash_(record_of(word)->digest()));
    while (fresh->words[slot].load(std::memory_order_relaxed) != kEmpty) slot = fresh->next(slot);
    fresh->words[slot].store(word, std::memory_order_relaxed);
  }
  used_ = live_;
  std::unique_ptr<Table> outgrown(table_.exchange(fresh.release()));
  retired_.push_back({quiescence_.stamp(), std::move(outgrown)});
  collect();
}

void KeyMap::collect() {
  if (retired_.empty()) return;
  const std::uint64_t safe_before = quiescence_.safe_before();
  while (!retired_.empty() && retired_.front().stamp < safe_before) retired_.pop_front();
}

std::size_t KeyMap::slots() const { return table_.load(std::memory_order_relaxed)->mask + 1; }

}  // namespace latchkey
