// One selected row -> one record, or the reason why there is none.
//
// Rows come from a database that others write to: nothing in them is trusted. A row that cannot be
// understood never yields an active record, and never stops the rows after it.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_set>
#include <utility>
#include <vector>

#include "keymap/key_set.h"
#include "loader/finding.h"
#include "loader/queries.h"
#include "loader/source.h"
#include "loader/text_converter.h"

namespace latchkey {

// A row field by field; null fields, and those that its table does not have, are nothing.
using RowView = std::array<std::optional<std::string_view>, kRowFields>;

// A row as it came over the wire -> a RowView: all is text but keys and times.
using WireRow = std::span<const std::optional<std::string_view>>;

class RowDecoder {
 public:
  // `encoding`: the database's, of fields that are read as they are stored.
  RowDecoder(std::vector<WireField> fields, std::string_view encoding)
      : fields_(std::move(fields)), converter_(encoding) {}
  [[nodiscard]] const std::vector<WireField>& fields() const { return fields_; }

  // Where the integers of one row are spelt out, and text is converted; the view leads into it.
  struct Texts {
    std::array<std::array<char, 24>, 3> integers;
    std::vector<std::string> converted;
  };
  // Whatever `view` held is gone. Throws std::runtime_error, which names the field, if there are
  // not fields().size() of them, or an integer, a time or a jsonb is none. An id that cannot be
  // converted is TextConverter::id(), any other text nothing.
  void decode(WireRow row, Texts& texts, RowView& view);

 private:
  void convert(RowField field, std::string_view stored, Texts& texts, RowView& view);

  std::vector<WireField> fields_;
  TextConverter converter_;
};

// What is odd about a row. The operator reads these in the log and in `status`.
enum class Oddity {
  kNoKey,            // the key column is NULL: nothing to present
  kBadDigest,        // not 32 bytes, or not hex / base64: can never match
  kUnknownPepper,    // hashed with a pepper version that is not at hand: can never match
  kUnknownStatus,    // a status in no list: refused as disabled
  kBadScopes,        // scopes that are no list of words: refused as disabled
  kUnusableScope,    // one scope that no request can name (empty, or with a space): left out
  kUnreadableTime,   // an expiry or not-before that is no time: refused as disabled
  kUnreadableJwt,    // a token whose claims cannot be read: refused as disabled
  kClaimsTooLong,    // more than LATCHKEY_CLAIMS_BYTES_MAX: refused as disabled
  kMetadataTooLong,  // served without its metadata
  kUnreadableText,   // no text in the database's encoding, or not in Unicode: refused as disabled
  kUseTimeUnit,      // last_used_at holds a number that is no count of seconds: nothing is written
};
constexpr std::size_t kOddities = 12;
// Under which number it is reported.
[[nodiscard]] Lint lint_of(Oddity oddity);
[[nodiscard]] const char* oddity_name(Oddity oddity);
// What it means for the key's holder and what to do.
[[nodiscard]] const char* oddity_sentence(Oddity oddity);

using OddityCounts = std::array<std::uint64_t, kOddities>;

class RowReader {
 public:
  // `pepper_versions` are those at hand, as rows name them; only asked for Scheme::kHmac.
  RowReader(const SourceConfig& source, const TableFacts& facts, ScopeSets& scopes,
            std::unordered_set<std::string> pepper_versions);

  // Nothing if the row can never match a presented key; else facts whose views lead into the row,
  // or into this until its next call. Counts what is odd in `counts`.
  [[nodiscard]] std::optional<RecordFacts> read(const RowView& row, OddityCounts& counts);

 private:
  std::optional<Digest> read_digest(std::string_view field) const;
  RecordFacts refusal(const Digest& digest, const RowView& row);
  RowState read_state(const RowView& row, OddityCounts& counts) const;
  const ScopeSet* read_scopes(std::string_view text, RecordFacts& facts, OddityCounts& counts);

  const SourceConfig& source_;
  ScopeSets& scopes_;
  std::unordered_set<std::string> pepper_versions_;
  bool scopes_are_json_;
  std::string made_up_id_;
};

// Binary timestamptz (PostgreSQL, "microseconds since 2000") -> microseconds since 1970. Infinities
// become the ends of the range, which mean "never" wherever a record holds a time.
[[nodiscard]] std::int64_t unix_us_from_timestamptz(std::int64_t postgres_us);

}  // namespace latchkey
