// A column of a source as the catalogue describes it: its type, and what follows from that.
#pragma once

#include <string>
#include <string_view>

#include "config/source.h"
#include "loader/postgres/catalogue.h"

namespace latchkey {

// Empty: the role is not mapped, or its column not there.
[[nodiscard]] const std::string& type_of(const SourceConfig& source, const TableFacts& facts,
                                         Role role);
[[nodiscard]] bool is_integer_type(std::string_view type);
constexpr const char* kIntegerArray = "pg_catalog.int8[]";
constexpr const char* kUuidArray = "pg_catalog.uuid[]";
constexpr const char* kNumericArray = "pg_catalog.numeric[]";
constexpr const char* kByteaArray = "pg_catalog.bytea[]";
constexpr const char* kCharacterArray = "pg_catalog.bpchar[]";
constexpr const char* kTextArray = "pg_catalog.text[]";
// The type of array in which ids are asked for: one of these. With all but the last one, and with
// that for columns of text, the index on the column answers.
[[nodiscard]] std::string id_array_type(const SourceConfig& source, const TableFacts& facts);
// Ids may hold any character, in whatever encoding the database has.
[[nodiscard]] bool ids_are_text(const SourceConfig& source, const TableFacts& facts);
[[nodiscard]] bool scopes_are_json(const SourceConfig& source, const TableFacts& facts);

}  // namespace latchkey
