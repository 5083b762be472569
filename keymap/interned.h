// Scope sets and tenants, stored once for all rows that share them.
//
// Both belong to one KeySetWriter and count their users: the records that reference them. Readers
// reach them only through records. A record counts as a user until no reader can hold it, so an
// object without users has no readers.
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
  // Keeps the order of `names` for answers. A set without users lives until the next sweep().
  [[nodiscard]] const ScopeSet* intern(const std::vector<std::string>& names);
  // Caches parsed spellings: rows spell few sets in few ways, so only a null from find() requires
  // parsing. `text` is the row's exact spelling and must keep this meaning while it is cached.
  void remember(std::string_view text, const ScopeSet* set);
  [[nodiscard]] const ScopeSet* find(std::string_view text) const;
  // Call when the meaning of texts changes.
  void forget_texts() { spellings_.clear(); }
  // Drops sets without users once the number of sets has doubled, so that the cost per new set is
  // constant.
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
  // Tenants are allocated in `slab`, which the records also use.
  explicit Tenants(Slab& slab) : slab_(slab) {}

  // The caller creates a record with the result at once.
  [[nodiscard]] const SharedClaim* intern(std::string_view tenant);
  // A user was destroyed; the last one also frees the tenant.
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
