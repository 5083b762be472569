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

#include "bench/flat_table.h"
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

// The lower bound (flat_table.h).
class Bare {
 public:
  static constexpr bool kConcurrent = false;
  using Access = NoAccess;
  explicit Bare(Population& population) : table_(population.size()) {
    for_each_record(population, [&](const Digest& digest, const Record*) { table_.add(digest); });
  }
  // `found` receives the addresses of the table's own digests in place of records.
  void find(Access&, std::span<const Digest> digests, std::span<const Record*> found) const {
    table_.find(digests, found);
  }

 private:
  FlatTable table_;
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
