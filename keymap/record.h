// One row of a key table, in the form that answers need.
//
// A record is immutable once readers can see it; a change makes a new record. Claims are encoded
// when the record is built, so that a verdict only copies bytes. Scope sets and tenants are stored
// once and shared by pointer. A record never contains a key, only the key's digest.
//
// Layout. The first 64 bytes hold everything that every verdict needs. Behind them stand the claims
// and the fields that only some rows have: metadata or stands_for, not-before, row hash.
#pragma once

#include <atomic>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/claims.h"
#include "base/clock.h"
#include "keymap/slab.h"
#include "keys/digest.h"

namespace latchkey {

// The state that the row's columns give, times aside.
enum class RowState : std::uint8_t { kActive, kRevoked, kDisabled, kDeleted };

// A distinct set of scopes, shared by all records that hold it.
struct ScopeSet {
  std::vector<std::string> sorted;
  std::vector<std::uint8_t> claim;  // encoded, in the order of the row
  mutable std::size_t users = 0;    // living records that hold it; only the writer counts

  [[nodiscard]] bool holds(std::string_view scope) const;
};

// An encoded claim that many records share: a tenant.
class SharedClaim {
 public:
  [[nodiscard]] static const SharedClaim* make(Slab& slab, latchkey_claim tag,
                                               std::string_view value);
  static void destroy(Slab& slab, const SharedClaim* claim);

  [[nodiscard]] Bytes encoded() const {
    return {reinterpret_cast<const std::uint8_t*>(this + 1), LATCHKEY_CLAIM_BYTES + length_};
  }
  [[nodiscard]] std::string_view value() const {
    return {reinterpret_cast<const char*>(this + 1) + LATCHKEY_CLAIM_BYTES, length_};
  }

  mutable std::uint32_t users = 0;  // living records that hold it; only the writer counts

 private:
  explicit SharedClaim(std::size_t length) : length_(static_cast<std::uint32_t>(length)) {}
  std::uint32_t length_;
};

// The data from which a record is made. The views need to live only during the call.
struct RecordFacts {
  Digest digest{};
  RowState state = RowState::kDisabled;
  std::int64_t expires_us = kNeverExpires;
  std::int64_t not_before_us = kAlwaysValid;
  std::string_view key_id;
  std::optional<std::string_view> subject;
  std::optional<std::string_view> tenant;
  std::optional<std::string_view> metadata;
  const ScopeSet* scopes = nullptr;  // null: the table has no scopes
  std::uint64_t row_hash = 0;        // hash of the row as read, for RowSums; zero: unknown
  bool id_is_made_up = false;        // the row's own id is too long for an answer
  // For a refusal that represents several rows with the same digest: their ids, separated by zero
  // bytes. Excludes metadata.
  std::optional<std::string_view> stands_for;

  // True if the claims without metadata fit into an answer (LATCHKEY_CLAIMS_BYTES_MAX).
  [[nodiscard]] bool claims_fit(std::size_t source_name_size) const;
  // True if the claims with metadata fit.
  [[nodiscard]] bool metadata_fits(std::size_t source_name_size) const;
};

class Record {
 public:
  // Allocates one block of `slab`. The claims must fit (see RecordFacts). `tenant` is the interned
  // tenant of `facts`, or null.
  [[nodiscard]] static const Record* make(Slab& slab, const RecordFacts& facts,
                                          const SharedClaim* tenant);
  // No reader may hold the record. Decrements the user counts of its scope set and tenant.
  static void destroy(Slab& slab, const Record* record);

  Record(const Record&) = delete;
  Record& operator=(const Record&) = delete;

  [[nodiscard]] const Digest& digest() const { return digest_; }
  [[nodiscard]] RowState state() const { return state_; }
  [[nodiscard]] std::int64_t expires_us() const { return expires_us_; }
  [[nodiscard]] std::int64_t not_before_us() const {
    return (extras_ & kHasNotBefore) != 0 ? stored_not_before() : kAlwaysValid;
  }
  [[nodiscard]] const ScopeSet* scopes() const { return scopes_; }
  [[nodiscard]] std::uint64_t row_hash() const {
    return (extras_ & kHasRowHash) != 0 ? stored_row_hash() : 0;
  }
  // Null if the row has no tenant.
  [[nodiscard]] const SharedClaim* tenant() const { return tenant_; }
  // Encoded claims: key_id, then the subject if the row has one.
  [[nodiscard]] Bytes claims() const { return {tail(), claims_length_}; }
  // Encoded metadata claim; empty if there is none.
  [[nodiscard]] Bytes metadata() const;
  [[nodiscard]] std::string_view key_id() const;
  // The ids that a refusal represents (see RecordFacts); nullopt for a row.
  [[nodiscard]] std::optional<std::string_view> stands_for() const;
  // True if a record made of `facts` would be equal (scope sets are interned and compared by
  // pointer).
  [[nodiscard]] bool says(const RecordFacts& facts) const;
  [[nodiscard]] std::size_t allocated_bytes() const;

  // Prefetches the bytes behind the first 64: the claims, and for a record that begins in the
  // middle of a cache line, the second half of its fixed part.
  void prefetch_rest() const { __builtin_prefetch(tail()); }

  // The writer's mark of the last load that saw this row. Readers never read it, so it may change
  // while they read other fields.
  void mark(std::uint8_t load) const { load_mark_ = load; }
  [[nodiscard]] std::uint8_t load_mark() const { return load_mark_; }

  // The tick of the last noted use of this key (keymap/use_log.h); 0: none. The only field that
  // readers write, at most once per tick each. Relaxed, because it orders nothing else; a reader
  // that misses another reader's store notes the same use twice.
  void note_used(std::uint32_t tick) const { used_tick_.store(tick, std::memory_order_relaxed); }
  [[nodiscard]] std::uint32_t used_tick() const {
    return used_tick_.load(std::memory_order_relaxed);
  }

 private:
  static constexpr std::uint8_t kHasMetadata = 1;
  static constexpr std::uint8_t kHasNotBefore = 2;
  static constexpr std::uint8_t kStandsFor = 4;
  static constexpr std::uint8_t kHasRowHash = 8;

  Record(const RecordFacts& facts, const SharedClaim* tenant);
  ~Record() = default;
  [[nodiscard]] const std::uint8_t* tail() const {
    return reinterpret_cast<const std::uint8_t*>(this + 1);
  }
  [[nodiscard]] std::int64_t stored_not_before() const;
  [[nodiscard]] std::uint64_t stored_row_hash() const;
  // The encoded claim behind the identity claims, if any: metadata, or the ids of stands_for.
  [[nodiscard]] Bytes extra() const;

  Digest digest_;
  std::int64_t expires_us_;
  const ScopeSet* scopes_;
  const SharedClaim* tenant_;
  mutable std::atomic<std::uint32_t> used_tick_{0};
  std::uint16_t claims_length_ = 0;
  mutable std::uint8_t load_mark_ = 0;
  RowState state_ : 4;
  std::uint8_t extras_ : 4 = 0;
};
static_assert(sizeof(Record) == 64);

}  // namespace latchkey
