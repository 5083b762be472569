// Turns one selected row into one record, or into the reason why there is none.
//
// Others write to the database that rows come from: no value is trusted. A malformed row never
// yields an active record, and never stops the rows after it.
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

#include "config/source.h"
#include "keymap/key_set.h"
#include "loader/postgres/queries.h"
#include "loader/postgres/text_converter.h"
#include "loader/row_meaning.h"

namespace latchkey {

// The fields of a row; null fields, and fields that the table lacks, are nullopt.
using RowView = std::array<std::optional<std::string_view>, kRowFields>;

// A row in its wire form; RowDecoder makes a RowView of it, with all fields but keys and times as
// text.
using WireRow = std::span<const std::optional<std::string_view>>;

class RowDecoder {
 public:
  // `encoding`: the database's, for fields that are read as they are stored.
  RowDecoder(std::vector<WireField> fields, std::string_view encoding)
      : fields_(std::move(fields)), converter_(encoding) {}
  [[nodiscard]] const std::vector<WireField>& fields() const { return fields_; }

  // Storage for the integers of one row in text form, and for converted text; the view refers to
  // it.
  struct Texts {
    std::array<std::array<char, 24>, 3> integers;
    std::vector<std::string> converted;
  };
  // Overwrites `view`. Throws std::runtime_error, which names the field, if the row does not have
  // fields().size() fields, or if an integer, a time or a jsonb is malformed. An id that cannot be
  // converted becomes TextConverter::id(), any other such text nullopt.
  void decode(WireRow row, Texts& texts, RowView& view);

 private:
  void convert(RowField field, std::string_view stored, Texts& texts, RowView& view);

  std::vector<WireField> fields_;
  TextConverter converter_;
};

class RowReader {
 public:
  // `pepper_versions`: the available ones, spelled as in rows; used only for Scheme::kHmac.
  RowReader(const SourceConfig& source, const TableFacts& facts, ScopeSets& scopes,
            std::unordered_set<std::string> pepper_versions);

  // Views refer to the row, or to this until its next call.
  [[nodiscard]] RowMeaning read(const RowView& row);

 private:
  std::optional<Digest> read_digest(std::string_view field) const;
  RecordFacts refusal(const Digest& digest, const RowView& row);
  RowState read_state(const RowView& row, Oddities& odd) const;
  const ScopeSet* read_scopes(std::string_view text, RecordFacts& facts, Oddities& odd);
  void read_facts(const RowView& row, RowMeaning& meaning);
  static void read_token_times(const RowView& row, RecordFacts& facts, Oddities& odd);
  void fit_claims(const RowView& row, RowMeaning& meaning);

  const SourceConfig& source_;
  ScopeSets& scopes_;
  std::unordered_set<std::string> pepper_versions_;
  bool scopes_are_json_;
  std::string made_up_id_;
};

// Converts a binary timestamptz (PostgreSQL, "microseconds since 2000") to microseconds since 1970.
// Infinities become the ends of the range, which mean "never" in every time of a record.
[[nodiscard]] std::int64_t unix_us_from_timestamptz(std::int64_t postgres_us);

}  // namespace latchkey
