// One row of a key table, as answers need it.
//
// A record is immutable from the moment that readers can see it; a change makes a new one. Its
// claims are encoded when it is built, so that a verdict copies bytes instead of building them. It
// never holds a key, only the key's digest.
#pragma once

#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "keymap/digest.h"
#include "protocol/claims.h"

namespace latchkey {

// What the row says of itself, time aside.
enum class RowState : std::uint8_t { kActive, kRevoked, kDisabled, kDeleted };

// Microseconds since 1970, UTC.
constexpr std::int64_t kNeverExpires = std::numeric_limits<std::int64_t>::max();
constexpr std::int64_t kAlwaysValid = std::numeric_limits<std::int64_t>::min();

// A distinct set of scopes, shared by all the records that hold it.
struct ScopeSet {
  std::vector<std::string> sorted;
  std::vector<std::uint8_t> claim;  // encoded, in the order in which the row lists them
  mutable std::size_t users = 0;    // living records that hold it; only the writer counts

  [[nodiscard]] bool holds(std::string_view scope) const;
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
};

class Record {
 public:
  struct Delete {
    void operator()(const Record* record) const;
  };
  using Owner = std::unique_ptr<const Record, Delete>;

  // One allocation; the claims stand behind the object. The claims must fit
  // LATCHKEY_CLAIMS_BYTES_MAX (see claims_fit).
  [[nodiscard]] static Owner make(const RecordFacts& facts);
  // Metadata aside, does what the row says of itself fit an answer?
  [[nodiscard]] static bool claims_fit(const RecordFacts& facts, std::size_t source_name_size);
  // Does it with the metadata?
  [[nodiscard]] static bool metadata_fits(const RecordFacts& facts, std::size_t source_name_size);

  Record(const Record&) = delete;
  Record& operator=(const Record&) = delete;

  [[nodiscard]] const Digest& digest() const { return digest_; }
  [[nodiscard]] RowState state() const { return state_; }
  [[nodiscard]] std::int64_t expires_us() const { return expires_us_; }
  [[nodiscard]] std::int64_t not_before_us() const { return not_before_us_; }
  [[nodiscard]] const ScopeSet* scopes() const { return scopes_; }
  // Encoded claims: key_id, then subject and tenant where the row has them.
  [[nodiscard]] Bytes claims() const { return {tail(), claims_length_}; }
  // Encoded metadata claim; empty where there is none.
  [[nodiscard]] Bytes metadata() const { return {tail() + claims_length_, metadata_length_}; }
  [[nodiscard]] std::string_view key_id() const;
  // Does it say the same as another one (scope sets compared by identity, as they are interned)?
  [[nodiscard]] bool same_as(const Record& other) const;
  [[nodiscard]] std::size_t allocated_bytes() const;

  // The writer's mark of the last load that saw this row. Readers never look at it, so it may
  // change while they read the rest.
  mutable std::uint32_t load_mark = 0;

 private:
  explicit Record(const RecordFacts& facts);
  ~Record();
  [[nodiscard]] const std::uint8_t* tail() const {
    return reinterpret_cast<const std::uint8_t*>(this + 1);
  }

  Digest digest_;
  std::int64_t expires_us_;
  std::int64_t not_before_us_;
  const ScopeSet* scopes_;
  std::uint16_t claims_length_ = 0;
  std::uint16_t metadata_length_ = 0;
  RowState state_;
};
static_assert(sizeof(Record) == 72);

}  // namespace latchkey
