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

#include "config/source.h"
#include "keymap/key_set.h"
#include "loader/postgres/queries.h"
#include "loader/postgres/text_converter.h"
#include "loader/row_meaning.h"

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

class RowReader {
 public:
  // `pepper_versions` are those at hand, as rows name them; only asked for Scheme::kHmac.
  RowReader(const SourceConfig& source, const TableFacts& facts, ScopeSets& scopes,
            std::unordered_set<std::string> pepper_versions);

  // Views lead into the row, or into this until its next call.
  [[nodiscard]] RowMeaning read(const RowView& row);

 private:
  std::optional<Digest> read_digest(std::string_view field) const;
  RecordFacts refusal(const Digest& digest, const RowView& row);
  RowState read_state(const RowView& row, Oddities& odd) const;
  const ScopeSet* read_scopes(std::string_view text, RecordFacts& facts, Oddities& odd);
  void read_facts(const RowView& row, RowMeaning& meaning);

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
