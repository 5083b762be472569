// What many rows have in common stands in memory once: scope sets and tenants.
//
// Both belong to one KeySetWriter and count their users, the records that hold them. Readers reach
// them through records only; a record counts as a user until no reader can hold it, so what has no
// user has no reader.
#pragma once

#include <tsl/robin_map.h>

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "keymap/record.h"
#include "keymap/sharded_set.h"

namespace latchkey {

class ScopeSets {
 public:
  // The order of `names` is kept for the answer. A set that no record holds lives until the next
  // sweep().
  [[nodiscard]] const ScopeSet* intern(const std::vector<std::string>& names);
  // Rows spell few sets in few ways, so parsing is needed only where find() returns null. `text` is
  // how a row spells the set, exactly, and may mean nothing else for as long as it is remembered.
  void remember(std::string_view text, const ScopeSet* set);
  [[nodiscard]] const ScopeSet* find(std::string_view text) const;
  // Texts will be read in another way.
  void forget_texts() { spellings_.clear(); }
  // Drops the sets without users, once their number has doubled: the cost stays constant for each
  // set made.
  void sweep();
  [[nodiscard]] std::size_t size() const { return sets_.size(); }

 private:
  static constexpr std::size_t kSweepMin = 1024;
  struct TextHash {
    using is_transparent = void;
    std::size_t operator()(std::string_view text) const { return text_hash(text); }
  };

  tsl::robin_map<std::string, std::unique_ptr<ScopeSet>, TextHash> sets_;
  tsl::robin_map<std::string, const ScopeSet*, TextHash, std::equal_to<>> spellings_;
  std::size_t sweep_at_ = kSweepMin;
};

class Tenants {
 public:
  // They stand in `slab`, which is the records'.
  explicit Tenants(Slab& slab) : slab_(slab) {}

  // For a record that is made right away.
  [[nodiscard]] const SharedClaim* intern(std::string_view tenant);
  // A user is gone; the last one takes the tenant along.
  void released(const SharedClaim* tenant);
  [[nodiscard]] std::size_t size() const { return tenants_.size(); }
  [[nodiscard]] std::size_t index_bytes() const { return tenants_.bytes(); }

 private:
  struct Hash {
    using is_transparent = void;
    std::size_t operator()(std::string_view tenant) const { return text_hash(tenant); }
    std::size_t operator()(const SharedClaim* claim) const { return (*this)(claim->value()); }
  };
  struct Equal {
    using is_transparent = void;
    static std::string_view value(std::string_view tenant) { return tenant; }
    static std::string_view value(const SharedClaim* claim) { return claim->value(); }
    template <typename A, typename B>
    bool operator()(const A& a, const B& b) const {
      return value(a) == value(b);
    }
  };

  Slab& slab_;
  ShardedSet<SharedClaim, Hash, Equal> tenants_;
};

}  // namespace latchkey
