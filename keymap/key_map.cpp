#include "keymap/key_map.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cassert>

#include "keymap/spread.h"

namespace latchkey {
namespace {

constexpr std::uint64_t kEmpty = 0;
constexpr std::uint64_t kTombstone = 1;  // no record has address 1
constexpr int kAddressBits = 48;         // user addresses on x86-64 and arm64 fit
constexpr std::uint64_t kAddressMask = (std::uint64_t{1} << kAddressBits) - 1;

constexpr std::size_t kSegmentSlotsMin = 8;
constexpr unsigned kDepthMax = 32;  // bits of the hash that choose a segment

// Never zero, so that neither an empty word nor a tombstone matches any tag.
std::uint64_t tag_of(std::uint64_t hash) {
  return (hash << 32 & ~kAddressMask) | std::uint64_t{1} << 63;
}
bool has_tag(std::uint64_t word, std::uint64_t tag) { return (word ^ tag) >> kAddressBits == 0; }

std::uint64_t word_of(std::uint64_t hash, const Record* record) {
  const auto address = reinterpret_cast<std::uint64_t>(record);
  assert((address & ~kAddressMask) == 0);
  return tag_of(hash) | address;
}

const Record* record_of(std::uint64_t word) {
  return reinterpret_cast<const Record*>(word & kAddressMask);  // NOLINT(performance-no-int-to-ptr)
}

bool is_record(std::uint64_t word) { return (word & kAddressMask) > kTombstone; }

// Index in a directory of 2^depth entries. Two shifts, because a shift by 64 is undefined.
std::size_t entry_of(std::uint64_t hash, unsigned depth) { return hash >> 1 >> (63 - depth); }

bool overfull(std::size_t used, std::size_t slots) {
  return used * KeyMap::kLoadDenominator > slots * KeyMap::kLoadNumerator;
}

std::size_t slots_holding(std::size_t keys) {
  std::size_t slots = kSegmentSlotsMin;
  while (overfull(keys, slots)) slots *= 2;
  return slots;
}

// Slots for `keys` and a third more, so that the next move is not needed soon.
std::size_t slots_for(std::size_t keys) { return slots_holding(keys + keys / 3); }

}  // namespace

// [8 bits: depth | 8 bits: log2 of the number of words | 48 bits: address]
//
// A segment's depth is the number of highest hash bits that all its keys share: in a directory of
// depth D, 2^(D - depth) entries point to it. A directory's depth is the log2 of its size.
struct KeyMap::Table {
  std::uint64_t packed;

  [[nodiscard]] Word* words() const {
    return reinterpret_cast<Word*>(packed & kAddressMask);  // NOLINT(performance-no-int-to-ptr)
  }
  [[nodiscard]] std::size_t size() const {
    return std::size_t{1} << (packed >> kAddressBits & 0xFF);
  }
  [[nodiscard]] std::size_t mask() const { return size() - 1; }
  [[nodiscard]] unsigned depth() const { return static_cast<unsigned>(packed >> 56); }
};

// The state of one look-up within a segment.
class KeyMap::Probe {
 public:
  Probe() = default;
  Probe(const Table& directory, std::uint64_t hash) : tag_(tag_of(hash)) {
    // R2 of quiescence.h: the entry points to a segment that may be retired.
    const Table segment{directory.words()[entry_of(hash, directory.depth())].load()};
    words_ = segment.words();
    mask_ = static_cast<std::uint32_t>(segment.mask());
    slot_ = static_cast<std::uint32_t>(hash) & mask_;
    left_ = mask_ + 1;
  }
  void prefetch() const { __builtin_prefetch(&words_[slot_]); }

  // Returns the next record with a matching tag, or null. A match is the key's record, or (1 in
  // 32768) another one.
  const Record* next() {
    // The count makes the loop wait-free: it ends after one round even if a writer keeps inserting
    // words ahead of it. A round visits the key's word if the word was present all the time.
    while (left_-- > 0) {
      const std::uint64_t word = words_[slot_].load();  // R2: points to a record
      slot_ = (slot_ + 1) & mask_;
      if (has_tag(word, tag_)) return record_of(word);
      if (word == kEmpty) break;
    }
    left_ = 0;
    return nullptr;
  }
  // Starts with `candidate`, a result of next(); continues until a record has the digest.
  const Record* settle(const Record* candidate, const Digest& digest) {
    while (candidate != nullptr && !(candidate->digest() == digest)) candidate = next();
    return candidate;
  }

 private:
  // Uninitialised by default: a batch has room for 64 probes, and clearing them takes time.
  const Word* words_;
  std::uint64_t tag_;
  std::uint32_t mask_;
  std::uint32_t slot_;
  std::uint32_t left_;
};

// ---- readers

const Record* KeyMap::find(const Digest& digest) const {
  Probe probe(Table{directory_.load()}, hash_of(digest));  // R2: points to a directory
  return probe.settle(probe.next(), digest);
}

// Three passes; each prefetches the memory that the next one reads.
void KeyMap::find(std::span<const Digest> digests, std::span<const Record*> found) const {
  assert(digests.size() <= kBatchMax && found.size() >= digests.size());
  // Plain arrays: index checks of the standard library would cost a tenth of a look-up.
  std::uint64_t hashes[kBatchMax];
  Probe probes[kBatchMax];
  const Record** const candidates = found.data();
  const std::size_t count = digests.size();
  hash_(digests, hashes);
  const Table directory{directory_.load()};  // R2
  for (std::size_t i = 0; i < count; ++i) {
    probes[i] = Probe(directory, hashes[i]);
    probes[i].prefetch();
  }
  for (std::size_t i = 0; i < count; ++i) {
    candidates[i] = probes[i].next();
    __builtin_prefetch(candidates[i]);
  }
  for (std::size_t i = 0; i < count; ++i) {
    candidates[i] = probes[i].settle(candidates[i], digests.data()[i]);
  }
}

// ---- the writer

KeyMap::KeyMap(Quiescence& quiescence, Hash hash, std::size_t segment_slots)
    : quiescence_(quiescence), hash_(hash), segment_slots_(segment_slots) {
  directory_.store(make_directory(0).packed);
}

std::uint64_t KeyMap::hash_of(const Digest& digest) const {
  std::uint64_t hash = 0;
  hash_({&digest, 1}, &hash);
  return hash;
}

// The writer's loads are relaxed: it reads its own stores, and no other thread stores here. Its
// stores into unpublished memory are relaxed too: the publishing store orders them.

// The position of a digest, or the position for inserting it.
struct KeyMap::Place {
  std::uint64_t hash = 0;
  Table segment{};
  Word* word = nullptr;       // the digest's word; null: none
  Word* successor = nullptr;  // the word after `word`
  Word* free_word = nullptr;  // the word for an insertion, if `word` is null
  [[nodiscard]] const Record* record() const {
    return record_of(word->load(std::memory_order_relaxed));
  }
};

KeyMap::Place KeyMap::locate(const Digest& digest) const {
  Place place;
  place.hash = hash_of(digest);
  const Table directory{directory_.load(std::memory_order_relaxed)};
  Word& entry = directory.words()[entry_of(place.hash, directory.depth())];
  place.segment = {entry.load(std::memory_order_relaxed)};
  Word* const words = place.segment.words();
  const std::size_t mask = place.segment.mask();
  const std::uint64_t tag = tag_of(place.hash);
  // Terminates: at least half of the words are empty.
  for (std::size_t slot = place.hash & mask;; slot = (slot + 1) & mask) {
    const std::uint64_t word = words[slot].load(std::memory_order_relaxed);
    if (word <= kTombstone && place.free_word == nullptr) place.free_word = &words[slot];
    if (word == kEmpty) return place;
    if (!has_tag(word, tag) || !(record_of(word)->digest() == digest)) continue;
    place.word = &words[slot];
    place.successor = &words[(slot + 1) & mask];
    return place;
  }
}

KeyMap::Usage& KeyMap::usage_of(std::uint64_t hash) {
  const Table directory{directory_.load(std::memory_order_relaxed)};
  const std::size_t entry = entry_of(hash, directory.depth());
  const Table segment{directory.words()[entry].load(std::memory_order_relaxed)};
  const unsigned shared_bits = directory.depth() - segment.depth();
  return usage_[entry >> shared_bits << shared_bits];
}

const Record* KeyMap::insert(const Record* record) {
  Place place = locate(record->digest());
  if (place.word != nullptr) return place.record();
  const bool reuse = place.free_word->load(std::memory_order_relaxed) == kTombstone;
  if (!reuse && overfull(usage_of(place.hash).used + std::size_t{1}, place.segment.size())) {
    make_room(place.hash);
    return insert(record);
  }
  Usage& usage = usage_of(place.hash);
  ++usage.live;
  ++size_;
  if (reuse) {
    --tombstones_;
  } else {
    ++usage.used;
  }
  // Sequentially consistent includes release: a thread that loads the word sees the complete
  // record.
  place.free_word->store(word_of(place.hash, record));
  return nullptr;
}

const Record* KeyMap::replace(const Record* record) {
  const Place place = locate(record->digest());
  assert(place.word != nullptr && "replace() needs a record to replace");
  const Record* old = place.record();
  // W1 for the old record, which the caller retires.
  place.word->store(word_of(place.hash, record));
  return old;
}

const Record* KeyMap::erase(const Digest& digest) {
  const Place place = locate(digest);
  if (place.word == nullptr) return nullptr;
  const Record* old = place.record();
  // A probe that ends at the next word needs no tombstone here.
  const bool last = place.successor->load(std::memory_order_relaxed) == kEmpty;
  place.word->store(last ? kEmpty : kTombstone);  // W1 for the old record, which the caller retires
  Usage& usage = usage_of(place.hash);
  --usage.live;
  --size_;
  reserved_slots_ = 0;  // otherwise a segment that shrinks here would grow back with its next key
  if (last) {
    --usage.used;
  } else {
    ++tombstones_;
  }
  // Shrinks the segment when less than a sixteenth is in use.
  if (place.segment.size() > kSegmentSlotsMin &&
      usage.live * std::size_t{16} < place.segment.size()) {
    move(place.hash, place.segment.depth());
  }
  return old;
}

// ---- growing

void KeyMap::reserve(std::size_t keys) {
  const Table old{directory_.load(std::memory_order_relaxed)};
  if (old.size() > 1 || size_ + tombstones_ > 0) return;
  const std::size_t segment_max = segment_slots_ * kLoadNumerator / kLoadDenominator;
  const unsigned depth = depth_for(keys, segment_max, kDepthMax);
  reserved_slots_ = slots_holding(with_spread(keys >> depth));
  const Table old_segment{old.words()[0].load(std::memory_order_relaxed)};
  directory_.store(make_directory(depth).packed);  // W1 for the old directory and its segment
  retire(old);
  retire(old_segment);
}

// For a map without keys: each entry gets its own segment of minimum size.
KeyMap::Table KeyMap::make_directory(unsigned depth) {
  const Table directory = make_table(std::size_t{1} << depth, depth);
  for (std::size_t i = 0; i < directory.size(); ++i) {
    directory.words()[i].store(make_table(kSegmentSlotsMin, depth).packed,
                               std::memory_order_relaxed);
  }
  usage_.assign(directory.size(), {});
  segments_ = directory.size();
  slots_ = segments_ * kSegmentSlotsMin;
  return directory;
}

KeyMap::Table KeyMap::make_table(std::size_t words, unsigned depth) {
  auto* memory = static_cast<Word*>(slab_.allocate(words * sizeof(Word)));
  for (std::size_t i = 0; i < words; ++i) new (&memory[i]) Word(kEmpty);
  const auto log2 = static_cast<std::uint64_t>(std::countr_zero(words));
  return {std::uint64_t{depth} << 56 | log2 << kAddressBits |
          reinterpret_cast<std::uint64_t>(memory)};
}

// Makes room for one more key in the segment of `hash`.
void KeyMap::make_room(std::uint64_t hash) {
  const Table directory{directory_.load(std::memory_order_relaxed)};
  const Table segment{
      directory.words()[entry_of(hash, directory.depth())].load(std::memory_order_relaxed)};
  const unsigned depth = segment.depth();
  // Splitting does not separate digests whose hashes agree in their highest bits. Once the
  // directory has more than four entries per segment, a segment exceeds its usual size instead.
  const bool splits =
      depth < directory.depth() || (depth < kDepthMax && directory.size() <= 4 * segments_);
  if (slots_for(usage_of(hash).live + std::size_t{1}) <= segment_slots_ || !splits) {
    return move(hash, depth);
  }
  if (depth == directory.depth()) double_directory();
  move(hash, depth + 1);
}

// Replaces the segment of `hash` by one segment, or by two of greater depth, without tombstones and
// with a fitting size.
void KeyMap::move(std::uint64_t hash, unsigned depth) {
  const Table directory{directory_.load(std::memory_order_relaxed)};
  const Table old{
      directory.words()[entry_of(hash, directory.depth())].load(std::memory_order_relaxed)};
  const std::size_t halves = std::size_t{1} << (depth - old.depth());
  assert(halves <= 2);
  // The hashes that represent the two halves differ in the last bit of the depth.
  const std::uint64_t bit = halves == 2 ? std::uint64_t{1} << (64 - depth) : 0;
  const Usage before = usage_of(hash);
  tombstones_ -= before.used - before.live;

  // The records to move and their hashes; read in batches, because most are in no cache.
  std::vector<std::pair<std::uint64_t, const Record*>> moved;
  moved.reserve(before.live);
  for (std::size_t i = 0; i < old.size(); ++i) {
    const std::uint64_t word = old.words()[i].load(std::memory_order_relaxed);
    if (is_record(word)) moved.emplace_back(0, record_of(word));
  }
  std::array<std::uint32_t, 2> live{};
  for (std::size_t from = 0; from < moved.size(); from += kBatchMax) {
    const auto part = std::span(moved).subspan(from, std::min(kBatchMax, moved.size() - from));
    std::array<Digest, kBatchMax> digests;
    std::array<std::uint64_t, kBatchMax> hashes;
    for (const auto& [hash_unset, record] : part) __builtin_prefetch(record);
    for (std::size_t i = 0; i < part.size(); ++i) digests[i] = part[i].second->digest();
    hash_(std::span(digests).first(part.size()), hashes.data());
    for (std::size_t i = 0; i < part.size(); ++i) {
      part[i].first = hashes[i];
      ++live[(hashes[i] & bit) != 0 ? 1 : 0];
    }
  }
  std::array<Table, 2> segments{};
  for (std::size_t half = 0; half < halves; ++half) {
    const std::size_t slots = slots_for(live[half] + std::size_t{1});
    segments[half] = make_table(std::max(slots, depth == old.depth() ? reserved_slots_ : 0), depth);
    slots_ += segments[half].size();
  }
  for (const auto& [moved_hash, record] : moved) {
    const Table& segment = segments[(moved_hash & bit) != 0 ? 1 : 0];
    Word* const words = segment.words();
    std::size_t slot = moved_hash & segment.mask();
    while (words[slot].load(std::memory_order_relaxed) != kEmpty) {
      slot = (slot + 1) & segment.mask();
    }
    words[slot].store(word_of(moved_hash, record), std::memory_order_relaxed);
  }
  for (std::size_t half = 0; half < halves; ++half) {
    publish(half == 0 ? hash & ~bit : hash | bit, segments[half], {live[half], live[half]});
  }
  segments_ += halves - 1;
  slots_ -= old.size();
  retire(old);
}

// Stores every directory entry of the segment. Meanwhile a reader may find the old segment through
// one entry and the new one through another. Both have the same contents until all entries are
// stored; the writer changes keys only afterwards.
void KeyMap::publish(std::uint64_t hash, const Table& segment, Usage usage) {
  const Table directory{directory_.load(std::memory_order_relaxed)};
  const unsigned shared_bits = directory.depth() - segment.depth();
  const std::size_t first = entry_of(hash, directory.depth()) >> shared_bits << shared_bits;
  for (std::size_t i = 0; i < std::size_t{1} << shared_bits; ++i) {
    directory.words()[first + i].store(segment.packed);  // W1 for the old segment
  }
  usage_[first] = usage;
}

void KeyMap::double_directory() {
  const Table old{directory_.load(std::memory_order_relaxed)};
  const Table twice = make_table(2 * old.size(), old.depth() + 1);
  std::vector<Usage> usage(twice.size());
  for (std::size_t i = 0; i < twice.size(); ++i) {
    twice.words()[i].store(old.words()[i / 2].load(std::memory_order_relaxed),
                           std::memory_order_relaxed);
    if (i % 2 == 0) usage[i] = usage_[i / 2];
  }
  usage_ = std::move(usage);
  directory_.store(twice.packed);  // W1 for the old directory
  retire(old);
}

// Call after unlinking.
void KeyMap::retire(const Table& table) {
  retired_.push_back({quiescence_.stamp(), table.words(), table.size() * sizeof(Word)});
  retired_bytes_ += retired_.back().bytes;
}

void KeyMap::collect() {
  if (retired_.empty()) return;
  const std::uint64_t safe_before = quiescence_.safe_before();
  for (; !retired_.empty() && retired_.front().stamp < safe_before; retired_.pop_front()) {
    retired_bytes_ -= retired_.front().bytes;
    slab_.free(retired_.front().memory, retired_.front().bytes);
  }
}

std::optional<std::uint64_t> KeyMap::oldest_retired() const {
  if (retired_.empty()) return std::nullopt;
  return retired_.front().stamp;
}

}  // namespace latchkey
