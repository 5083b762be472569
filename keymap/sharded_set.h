// A set of pointers that grows in small steps.
//
// tsl::robin_set moves all its elements when it grows: with ten million rows, the loader would
// pause for a second. This set distributes objects over many small sets by the highest bits of
// their hashes, and splits a full one in two, as KeyMap splits its segments.
//
// A bucket takes 16 bytes (pointer, 32 bits of the hash, distance), which makes 20 to 40 bytes per
// object. Keys are read from the objects themselves, so an id takes no extra memory.
#pragma once

#include <tsl/robin_set.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "keymap/slab.h"
#include "keymap/spread.h"

namespace latchkey {

// The bucket array of a tsl::robin_set, which does not expose it: the last allocation made. Use
// only for prefetching: a wrong value makes look-ups slower and has no other effect.
struct Buckets {
  const std::byte* start = nullptr;
  std::size_t count = 0;
  std::size_t bytes_each = 0;

  // The bucket where the search for `hash` begins; null if there are no buckets. (The set's growth
  // policy uses powers of two.)
  [[nodiscard]] const std::byte* at(std::size_t hash) const {
    return count == 0 ? nullptr : start + (hash & (count - 1)) * bytes_each;
  }
};

// A SlabAllocator for the set's buckets; records them in `buckets`, which must outlive it.
template <typename T>
class BucketAllocator {
 public:
  using value_type = T;

  BucketAllocator(Slab& slab, Buckets& buckets) : slab_(slab), buckets_(&buckets) {}
  template <typename U>
  BucketAllocator(const BucketAllocator<U>& other) : slab_(other.slab_), buckets_(other.buckets_) {}

  [[nodiscard]] T* allocate(std::size_t count) {
    T* const start = slab_.allocate(count);
    *buckets_ = {reinterpret_cast<const std::byte*>(start), count, sizeof(T)};
    return start;
  }
  void deallocate(T* block, std::size_t count) noexcept { slab_.deallocate(block, count); }

  template <typename U>
  friend bool operator==(const BucketAllocator& a, const BucketAllocator<U>& b) {
    return a.slab_ == b.slab_ && a.buckets_ == b.buckets_;
  }

 private:
  template <typename U>
  friend class BucketAllocator;
  SlabAllocator<T> slab_;
  Buckets* buckets_;
};

// `Hash` and `Equal` are transparent: they take a `const T*` or a key. Hashes have 64 random bits.
// A shard is full with `kShardMax` objects; the default is four fifths of 4096 buckets (64 KiB).
template <typename T, typename Hash, typename Equal, std::size_t kShardMax = 3276>
class ShardedSet {
 public:
  ShardedSet() { shards_ = {make_shard(0)}; }

  template <typename Key>
  [[nodiscard]] const T* find(const Key& key) const {
    return find(key, Hash()(key));
  }
  // Looks up many keys at once; found[i] receives the result for keys[i]. The cache misses of the
  // look-ups overlap.
  template <typename Key>
  void find(std::span<const Key> keys, std::span<const T*> found) const {
    constexpr std::size_t kAtOnce = 64;
    std::array<std::size_t, kAtOnce> hashes;
    for (std::size_t from = 0; from < keys.size(); from += kAtOnce) {
      const auto part = keys.subspan(from, std::min(kAtOnce, keys.size() - from));
      for (std::size_t i = 0; i < part.size(); ++i) {
        hashes[i] = Hash()(part[i]);
        __builtin_prefetch(shard_of(hashes[i]).buckets.at(hashes[i]));
      }
      for (std::size_t i = 0; i < part.size(); ++i) found[from + i] = find(part[i], hashes[i]);
    }
  }
  // Prepares for about `objects` insertions: shards are created at once and get their memory with
  // their first object, which avoids repeated moves. Does nothing unless the set is new.
  void reserve(std::size_t objects) {
    if (owned_.size() > 1 || size_ > 0) return;
    depth_ = depth_for(objects, kShardMax, kDepthMax);
    reserved_ = with_spread(objects >> depth_);
    owned_.clear();
    shards_.resize(std::size_t{1} << depth_);
    for (Shard*& shard : shards_) shard = make_shard(depth_);
  }
  // Inserts `object` and returns null, unless the set contains an equal one: then it returns that
  // one.
  const T* insert(const T* object) {
    const std::size_t hash = Hash()(object);
    if (shard_of(hash).set.size() >= kShardMax) split(hash);
    Set& set = shard_of(hash).set;
    if (set.empty()) set.reserve(reserved_);
    const auto [at, inserted] = set.insert(object);
    if (!inserted) return *at;
    ++size_;
    return nullptr;
  }
  // Requires that the set contains `object`.
  void erase(const T* object) {
    const std::size_t hash = Hash()(object);
    size_ -= shard_of(hash).set.erase(object, hash);
  }
  // Replaces `old`, which is in the set, by its equal `fresh`.
  void replace(const T* old, const T* fresh) {
    const std::size_t hash = Hash()(old);
    Set& set = shard_of(hash).set;
    set.erase(old, hash);
    set.insert(fresh);
  }
  [[nodiscard]] std::size_t size() const { return size_; }
  template <typename Visit>
  void for_each(Visit visit) const {
    for (const auto& shard : owned_) {
      for (const T* object : shard->set) visit(object);
    }
  }
  // Visits one part of some thousand objects, for walks that are interrupted. An insertion during a
  // walk may split a part: the walk then visits moved objects twice, but misses none that stays.
  [[nodiscard]] std::size_t parts() const { return owned_.size(); }
  template <typename Visit>
  void for_each_of_part(std::size_t part, Visit visit) const {
    for (const T* object : owned_[part]->set) visit(object);
  }
  // Bytes in use.
  [[nodiscard]] std::size_t bytes() const {
    return slab_.used_bytes() + shards_.capacity() * sizeof(void*) + owned_.size() * sizeof(Shard);
  }

 private:
  using Set = tsl::robin_set<const T*, Hash, Equal, BucketAllocator<const T*>, /*StoreHash=*/true>;
  struct Shard {
    explicit Shard(Slab& slab) : set(BucketAllocator<const T*>(slab, buckets)) {
      set.max_load_factor(kLoadMax);
    }
    Buckets buckets;
    Set set;
    unsigned depth = 0;  // number of highest hash bits that its objects share
  };
  // Robin Hood hashing keeps probes short up to this load.
  static constexpr float kLoadMax = 0.8F;
  static constexpr unsigned kDepthMax = 32;  // the other bits select buckets

  template <typename Key>
  [[nodiscard]] const T* find(const Key& key, std::size_t hash) const {
    const Set& set = shard_of(hash).set;
    const auto found = set.find(key, hash);
    return found == set.end() ? nullptr : *found;
  }

  [[nodiscard]] std::size_t entry_of(std::size_t hash) const { return hash >> 1 >> (63 - depth_); }
  [[nodiscard]] Shard& shard_of(std::size_t hash) const { return *shards_[entry_of(hash)]; }

  Shard* make_shard(unsigned depth) {
    owned_.push_back(std::make_unique<Shard>(slab_));
    owned_.back()->depth = depth;
    return owned_.back().get();
  }

  void split(std::size_t hash) {
    Shard& old = shard_of(hash);
    // Splitting does not separate objects whose hashes agree; the set grows instead.
    const bool splits =
        old.depth < depth_ || (old.depth < kDepthMax && shards_.size() <= 4 * owned_.size());
    if (!splits) return;
    if (old.depth == depth_) {
      std::vector<Shard*> twice(2 * shards_.size());
      for (std::size_t i = 0; i < twice.size(); ++i) twice[i] = shards_[i / 2];
      shards_ = std::move(twice);
      ++depth_;
    }
    std::vector<const T*> objects(old.set.begin(), old.set.end());
    Shard* const upper = make_shard(old.depth + 1);
    const std::size_t bit = std::size_t{1} << (63 - old.depth);
    old.depth += 1;
    old.set.clear();
    old.set.reserve(kShardMax);
    upper->set.reserve(kShardMax);
    for (std::size_t i = 0; i < objects.size(); ++i) {
      constexpr std::size_t kAhead = 16;
      if (i + kAhead < objects.size()) prefetch(objects[i + kAhead]);
      const bool up = (Hash()(objects[i]) & bit) != 0;
      (up ? upper->set : old.set).insert(objects[i]);
    }
    const std::size_t entries = std::size_t{1} << (depth_ - upper->depth);
    const std::size_t first = entry_of(hash | bit) / entries * entries;
    for (std::size_t i = 0; i < entries; ++i) shards_[first + i] = upper;
  }
  // Hash reads only the first two cache lines of an object.
  static void prefetch(const T* object) {
    __builtin_prefetch(object);
    __builtin_prefetch(reinterpret_cast<const char*>(object) + 64);
  }

  Slab slab_;  // declared before the members allocated in it
  std::vector<std::unique_ptr<Shard>> owned_;
  std::vector<Shard*> shards_;
  unsigned depth_ = 0;
  std::size_t reserved_ = 0;  // initial capacity of a shard that gets its first object
  std::size_t size_ = 0;
};

}  // namespace latchkey
