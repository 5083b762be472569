// One row of a key table, as answers need it.
//
// A record is immutable from the moment that readers can see it; a change makes a new one. Its
// claims are encoded when it is built, so that a verdict copies bytes instead of building them.
// What many rows have in common (a scope set, a tenant) stands once and is pointed to. A record
// never holds a key, only the key's digest.
//
// Layout. The first 64 bytes hold all that a verdict is made of. What only some rows have, and what
// only the answer needs, stands behind: claims, metadata, not-before.
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

// What the row says of itself, time aside.
enum class RowState : std::uint8_t { kActive, kRevoked, kDisabled, kDeleted };

// A distinct set of scopes, shared by all the records that hold it.
struct ScopeSet {
  std::vector<std::string> sorted;
  std::vector<std::uint8_t> claim;  // encoded, in the order in which the row lists them
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

// Everything that a record is made of. Views need to live only as long as the call.
struct RecordFacts {
  Digest digest{};
  RowState state = RowState::kDisabled;
  std::int64_t expires_us = kNeverExpires;
  std::int64_t not_before_us = kAlwaysValid;
  std::string_view key_id;
  std::optional<std::string_view> subject;
  std::optional<std::string_view> tenant;
  std::optional<std::string_view> metadata;
  const ScopeSet* scopes = nullptr;  // null: the table knows no scopes
  std::uint64_t row_hash = 0;        // of the row as it was read, for RowSums; zero: not known
  bool id_is_made_up = false;        // `key_id` is not the row's, which is too long for an answer
  // Of a refusal that is made up because several rows hold the digest: their ids, a zero byte
  // between two. It has no metadata.
  std::optional<std::string_view> stands_for;

  // Metadata aside, does what the row says of itself fit an answer (LATCHKEY_CLAIMS_BYTES_MAX)?
  [[nodiscard]] bool claims_fit(std::size_t source_name_size) const;
  // Does it with the metadata?
  [[nodiscard]] bool metadata_fits(std::size_t source_name_size) const;
};

class Record {
 public:
  // One block of `slab`. The facts' claims must fit (see RecordFacts); `tenant` is the facts' own,
  // interned, or null.
  [[nodiscard]] static const Record* make(Slab& slab, const RecordFacts& facts,
                                          const SharedClaim* tenant);
  // Nobody may look at it any more. What it shared is one user poorer.
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
  // Null: the row names none.
  [[nodiscard]] const SharedClaim* tenant() const { return tenant_; }
  // Encoded claims: key_id, then subject where the row has one.
  [[nodiscard]] Bytes claims() const { return {tail(), claims_length_}; }
  // Encoded metadata claim; empty where there is none.
  [[nodiscard]] Bytes metadata() const;
  [[nodiscard]] std::string_view key_id() const;
  // Nothing, unless this is no row but a refusal made up for several (see RecordFacts).
  [[nodiscard]] std::optional<std::string_view> stands_for() const;
  // Does a record of these facts say the same (scope sets compared by identity: they are interned)?
  [[nodiscard]] bool says(const RecordFacts& facts) const;
  [[nodiscard]] std::size_t allocated_bytes() const;

  // Brings what stands behind the first cache line into the cache while something else is done: the
  // claims, and for records that begin in the middle of a line, half of what a verdict is made of.
  void prefetch_rest() const { __builtin_prefetch(tail()); }

  // The writer's mark of the last load that saw this row. Readers never look at it, so it may
  // change while they read the rest.
  void mark(std::uint8_t load) const { load_mark_ = load; }
  [[nodiscard]] std::uint8_t load_mark() const { return load_mark_; }

  // The tick in which a use of this key was last noted (keymap/use_log.h); 0: none was. The only
  // thing here that readers write, at most once a tick each. Relaxed: it says nothing of anything
  // else, and whoever misses another's store only notes the same use twice.
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
  // The encoded claim behind the identity, if there is one: metadata, or whom it stands for.
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
