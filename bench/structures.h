// The structures that Latchkey's map is compared with: alternatives, and the lower bound.
//
// All have the same interface: an Access for each reading thread; find(access, digests, found) for
// one batch, including its protection from a writer; change(record), which stores `record` under
// its digest. The values are pointers to the records of Latchkey's own map. The benchmark touches
// each record that was found (touch()), because an answer is made from it.
#pragma once

#include <tsl/robin_map.h>

#include <atomic>
#include <memory>
#include <mutex>
#include <shared_mutex>
#include <span>
#include <unordered_map>
#include <vector>

#include "bench/population.h"

namespace latchkey::bench {

struct DigestHash {
  std::size_t operator()(const Digest& digest) const { return slot_hash(digest); }
};
using StdMap = std::unordered_map<Digest, const Record*, DigestHash>;
using RobinMap = tsl::robin_map<Digest, const Record*, DigestHash>;

struct NoAccess {
  template <typename Structure>
  explicit NoAccess(const Structure&) {}
};

[[nodiscard]] inline std::uint64_t touch(const Record* record) {
  return record != nullptr ? record->digest().bytes[0] : 0;
}

// Every record of a population, by digest.
template <typename Add>
void for_each_record(Population& population, Add add) {
  for (std::size_t i = 0; i < population.size(); ++i) {
    const Digest digest = population.digest(i);
    add(digest, population.keys.map.find(digest));
  }
}

// A well-known map behind a shared lock that readers take once per batch.
template <typename Map>
class Locked {
 public:
  static constexpr bool kConcurrent = true;
  using Access = NoAccess;
  explicit Locked(Population& population) {
    map_.reserve(population.size());
    for_each_record(population, [&](const Digest& digest, const Record* record) {
      map_.emplace(digest, record);
    });
  }
  void find(Access&, std::span<const Digest> digests, std::span<const Record*> found) const {
    const std::shared_lock lock(mutex_);
    for (std::size_t i = 0; i < digests.size(); ++i) {
      const auto it = map_.find(digests[i]);
      found[i] = it == map_.end() ? nullptr : it->second;
    }
  }
  void change(const Record* record) {
    const std::unique_lock lock(mutex_);
    map_[record->digest()] = record;
  }
  void insert(const Record* record) { change(record); }
  void erase(const Digest& digest) {
    const std::unique_lock lock(mutex_);
    map_.erase(digest);
  }

 private:
  mutable std::shared_mutex mutex_;
  Map map_;
};

// Readers take a reference to an immutable map; a change copies the whole map.
class Copied {
 public:
  static constexpr bool kConcurrent = true;
  using Access = NoAccess;
  explicit Copied(Population& population) {
    auto map = std::make_shared<RobinMap>();
    map->reserve(population.size());
    for_each_record(population, [&](const Digest& digest, const Record* record) {
      map->emplace(digest, record);
    });
    map_.store(std::move(map));
  }
  void find(Access&, std::span<const Digest> digests, std::span<const Record*> found) const {
    const std::shared_ptr<const RobinMap> map = map_.load();
    for (std::size_t i = 0; i < digests.size(); ++i) {
      const auto it = map->find(digests[i]);
      found[i] = it == map->end() ? nullptr : it->second;
    }
  }
  void change(const Record* record) {
    auto copy = std::make_shared<RobinMap>(*map_.load());
    (*copy)[record->digest()] = record;
    map_.store(std::move(copy));
  }
  void insert(const Record* record) { change(record); }
  void erase(const Digest& digest) {
    auto copy = std::make_shared<RobinMap>(*map_.load());
    copy->erase(digest);
    map_.store(std::move(copy));
  }

 private:
  std::atomic<std::shared_ptr<const RobinMap>> map_;
};

// The lower bound: only the two memory accesses that every look-up needs. A table of plain words
// [16-bit tag | record address], at most half full; records of one aligned cache line that hold
// only a digest; both in huge pages; the same hash, the same comparison, the same three passes. It
// cannot change while it is read, cannot grow, and gives no answers.
class Bare {
 public:
  static constexpr bool kConcurrent = false;
  using Access = NoAccess;
  explicit Bare(Population& population) {
    std::size_t slots = 64;
    while (slots < 2 * population.size()) slots *= 2;
    mask_ = slots - 1;
    words_ = static_cast<std::uint64_t*>(slab_.allocate(slots * sizeof(std::uint64_t)));
    std::fill_n(words_, slots, std::uint64_t{0});
    lines_ = static_cast<Line*>(slab_.allocate(population.size() * sizeof(Line)));
    std::size_t next = 0;
    for_each_record(population, [&](const Digest& digest, const Record*) {
      Line* line = new (&lines_[next++]) Line{digest};
      const std::uint64_t hash = slot_hash(digest);
      std::size_t slot = hash & mask_;
      while (words_[slot] != 0) slot = (slot + 1) & mask_;
      words_[slot] = (hash & ~kAddress) | reinterpret_cast<std::uint64_t>(line);
    });
  }
  // `found` receives the addresses of lines in place of records.
  void find(Access&, std::span<const Digest> digests, std::span<const Record*> found) const {
    std::uint64_t hashes[KeyMap::kBatchMax];
    std::size_t slots[KeyMap::kBatchMax];
    slot_hashes(digests, hashes);
    for (std::size_t i = 0; i < digests.size(); ++i) {
      slots[i] = hashes[i] & mask_;
      __builtin_prefetch(&words_[slots[i]]);
    }
    for (std::size_t i = 0; i < digests.size(); ++i) {
      slots[i] = candidate(slots[i], hashes[i]);
      __builtin_prefetch(line(slots[i]));
    }
    for (std::size_t i = 0; i < digests.size(); ++i) {
      while (line(slots[i]) != nullptr && !(line(slots[i])->digest == digests[i])) {
        slots[i] = candidate((slots[i] + 1) & mask_, hashes[i]);
      }
      found[i] = reinterpret_cast<const Record*>(line(slots[i]));
    }
  }

 private:
  struct alignas(64) Line {
    Digest digest;
  };
  static constexpr std::uint64_t kAddress = (std::uint64_t{1} << 48) - 1;
  // The next slot that is empty or has a matching tag.
  [[nodiscard]] std::size_t candidate(std::size_t slot, std::uint64_t hash) const {
    while (words_[slot] != 0 && ((words_[slot] ^ hash) & ~kAddress) != 0) slot = (slot + 1) & mask_;
    return slot;
  }
  [[nodiscard]] const Line* line(std::size_t slot) const {
    return reinterpret_cast<const Line*>(words_[slot] & kAddress);
  }

  Slab slab_;
  std::size_t mask_ = 0;
  std::uint64_t* words_ = nullptr;
  Line* lines_ = nullptr;
};

// Latchkey's own map with the same interface.
class Ours {
 public:
  static constexpr bool kConcurrent = true;
  explicit Ours(Population& population)
      : quiescence_(population.quiescence), map_(population.keys.map) {}
  struct Access {
    explicit Access(const Ours& ours) : reader(ours.quiescence_) {}
    Quiescence::Reader reader;
  };
  void find(Access& access, std::span<const Digest> digests, std::span<const Record*> found) const {
    const ReadSection section(access.reader);
    map_.find(digests, found);
  }

 private:
  Quiescence& quiescence_;
  const KeyMap& map_;
};

// Holds the last used structure of its type only, because structures are large and are measured one
// after the other.
template <typename Structure>
class Held {
 public:
  static Structure& of(Population& population) {
    const std::lock_guard lock(mutex_);  // benchmarks with several threads
    if (structure_ == nullptr || of_ != population.serial()) {
      structure_.reset();
      structure_ = std::make_unique<Structure>(population);
      of_ = population.serial();
    }
    return *structure_;
  }
  static void drop() { structure_.reset(); }

 private:
  static inline std::mutex mutex_;
  static inline std::unique_ptr<Structure> structure_;
  static inline std::size_t of_ = 0;
};

}  // namespace latchkey::bench
