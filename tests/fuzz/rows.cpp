// Rows of a binary COPY, with any content that a table's owner can store -> records.
//
// - Each row alone gives the same as after any others: no cache and no memory of a table changes
//   the meaning of another row.
// - A row gives an active record only if its state, its times and its scopes are understood.
// - Bytes that are not a COPY fail with PgError or std::runtime_error.
#include <endian.h>

#include <algorithm>
#include <cstring>
#include <optional>
#include <stdexcept>

#include "loader/postgres/connection.h"
#include "loader/postgres/row.h"
#include "tests/fuzz/fuzz.h"

namespace {

using namespace latchkey;

struct Table {
  SourceConfig source;
  TableFacts facts;
  std::vector<WireField> fields;
};

Table table_from(FuzzedDataProvider& input) {
  Table table;
  SourceConfig& source = table.source;
  source.name = "fuzz";
  source.scheme = input.PickValueInArray(
      {Scheme::kSha256, Scheme::kPlain, Scheme::kHmac, Scheme::kJwt, Scheme::kJwtJti});
  source.encoding = input.PickValueInArray({Encoding::kRaw, Encoding::kHex, Encoding::kBase64});
  table.facts.exists = table.facts.is_table = true;
  // Mostly the usual encoding: opening a converter takes as long as reading hundreds of rows.
  if (input.ConsumeIntegralInRange<int>(0, 9) == 0) {
    table.facts.encoding =
        input.PickValueInArray<const char*>({"LATIN2", "SJIS", "SQL_ASCII", "WIN1252"});
  }
  for (std::size_t i = 0; i < kRoles; ++i) {
    const auto role = static_cast<Role>(i);
    const bool needed = role == Role::kId || role == Role::kKey;
    if (!needed && input.ConsumeBool()) continue;
    const char* name = role_name(role);
    source.columns[role] = name;
    table.facts.columns[name] = input.PickValueInArray<const char*>(
        {"text", "bigint", "integer", "smallint", "uuid", "bytea", "jsonb", "json", "text[]",
         "boolean", "timestamp with time zone", "timestamp without time zone", "date",
         "character varying", "character(8)", "numeric", "inet"});
  }
  table.fields = wire_fields(source, table.facts);
  return table;
}

std::string big_endian(std::uint64_t value, std::size_t bytes) {
  const std::uint64_t ordered = htobe64(value);
  return {reinterpret_cast<const char*>(&ordered) + 8 - bytes, bytes};
}

// A value that a server would send for this field, or nearly so.
std::string value_from(FuzzedDataProvider& input, const WireField& field) {
  if (input.ConsumeIntegralInRange<int>(0, 7) == 0) return fuzz::short_text(input, 80);
  if (field.field == kFieldState)
    return input.PickValueInArray<const char*>({"a", "a", "r", "d", "x", "u"});
  if (field.field == kFieldKey && input.ConsumeBool()) {
    const std::string digest(32, input.ConsumeIntegral<char>());
    if (field.type == kBytea) return digest;
    return std::string(64, input.PickValueInArray({'0', 'a', 'F'}));
  }
  switch (field.type) {
    case kInt8: return big_endian(input.ConsumeIntegral<std::uint64_t>(), 8);
    case kInt4: return big_endian(input.ConsumeIntegral<std::uint32_t>(), 4);
    case kInt2: return big_endian(input.ConsumeIntegral<std::uint16_t>(), 2);
    case kTimestamptz:
      return big_endian(input.ConsumeBool() ? input.ConsumeIntegral<std::uint64_t>()
                                            : input.PickValueInArray<std::uint64_t>(
                                                  {0, static_cast<std::uint64_t>(kNoTimePostgresUs),
                                                   ~std::uint64_t{0} >> 1, std::uint64_t{1} << 63}),
                        8);
    case kJsonb: return "\1" + fuzz::short_text(input, 60);
    default: return fuzz::short_text(input, 60);
  }
}

using Row = std::vector<std::optional<std::string>>;

std::string tuple_of(const Row& row) {
  std::string bytes = big_endian(row.size(), 2);
  for (const auto& field : row) {
    bytes += big_endian(field ? field->size() : 0xFFFFFFFFU, 4);
    bytes += field.value_or("");
  }
  return bytes;
}

const std::string kHeader("PGCOPY\n\377\r\n\0\0\0\0\0\0\0\0\0", 19);

std::string text_of(const std::optional<RecordFacts>& facts, const OddityCounts& counts) {
  std::string text;
  for (const std::uint64_t count : counts) text += std::to_string(count) + " ";
  if (!facts) return text + "none";
  const auto add = [&](const std::optional<std::string_view>& value) {
    text += value ? " '" + std::string(*value) + "'" : " -";
  };
  text += std::string(as_text(facts->digest.bytes)) + " " +
          std::to_string(static_cast<int>(facts->state)) + " " + std::to_string(facts->expires_us) +
          " " + std::to_string(facts->not_before_us);
  add(facts->key_id);
  add(facts->subject);
  add(facts->tenant);
  add(facts->metadata);
  if (facts->scopes == nullptr) return text + " no scopes";
  for (const std::string& scope : facts->scopes->sorted) text += " [" + scope + "]";
  return text + " " + std::string(as_text(facts->scopes->claim));
}

// The same steps as Loader::Source for a load.
class Reader {
 public:
  explicit Reader(const Table& table)
      : decoder_(table.fields, table.facts.encoding),
        reader_(table.source, table.facts, scopes_, {"v1"}),
        copy_(table.fields.size()) {}

  // The result for each row of the message. A row that ends the load is the last.
  std::vector<std::string> read(std::string_view message) {
    std::vector<std::string> rows;
    try {
      copy_.read(message, [&](const CopyReader::Fields& fields) { rows.push_back(read(fields)); });
    } catch (const std::runtime_error&) {
      rows.emplace_back("broken");
    }
    return rows;
  }

 private:
  std::string read(const CopyReader::Fields& fields) {
    RowDecoder::Texts texts{};
    RowView view{};
    decoder_.decode(fields, texts, view);
    OddityCounts counts{};
    const RowMeaning meaning = reader_.read(view);
    meaning.odd.count_in(counts);
    const auto& facts = meaning.facts;
    if (facts && facts->state == RowState::kActive) {
      FUZZ_CHECK(view[kFieldState] == "a" && !view[kFieldUnreadable]);
      for (const Oddity refusing :
           {Oddity::kUnknownStatus, Oddity::kBadScopes, Oddity::kUnreadableTime,
            Oddity::kUnreadableJwt, Oddity::kClaimsTooLong}) {
        FUZZ_CHECK(counts[static_cast<std::size_t>(refusing)] == 0);
      }
      FUZZ_CHECK(facts->claims_fit(std::strlen("fuzz")));
    }
    return text_of(facts, counts);
  }

  ScopeSets scopes_;
  RowDecoder decoder_;
  RowReader reader_;
  CopyReader copy_;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  FuzzedDataProvider input(data, size);
  const Table table = table_from(input);
  Reader all(table);
  std::vector<Row> rows(input.ConsumeIntegralInRange<std::size_t>(0, 6));
  std::string stream = kHeader;
  for (Row& row : rows) {
    for (const WireField& field : table.fields) {
      row.emplace_back();
      if (input.ConsumeIntegralInRange<int>(0, 9) != 0) row.back() = value_from(input, field);
    }
    stream += tuple_of(row);
  }
  const std::vector<std::string> together = all.read(stream);
  std::vector<std::string> alone;
  for (const Row& row : rows) {
    for (const std::string& one : Reader(table).read(kHeader + tuple_of(row))) alone.push_back(one);
    if (!alone.empty() && alone.back() == "broken") break;  // this row ends the load, too
  }
  FUZZ_CHECK(together == alone);
  // The following bytes are arbitrary.
  (void)all.read(input.ConsumeRemainingBytesAsString());
  return 0;
}
