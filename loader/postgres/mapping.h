// A mapped column as the catalogue describes it: its type, and the properties that follow from it.
#pragma once

#include <string>
#include <string_view>

#include "config/source.h"
#include "loader/postgres/catalogue.h"

namespace latchkey {

// Empty if the role is not mapped, or if its column does not exist.
[[nodiscard]] const std::string& type_of(const SourceConfig& source, const TableFacts& facts,
                                         Role role);
[[nodiscard]] bool is_integer_type(std::string_view type);
constexpr const char* kIntegerArray = "pg_catalog.int8[]";
constexpr const char* kUuidArray = "pg_catalog.uuid[]";
constexpr const char* kNumericArray = "pg_catalog.numeric[]";
constexpr const char* kByteaArray = "pg_catalog.bytea[]";
constexpr const char* kCharacterArray = "pg_catalog.bpchar[]";
constexpr const char* kTextArray = "pg_catalog.text[]";
// The array type in which the re-read passes ids: one of the above. With all but the last one, and
// with that one for columns of text, PostgreSQL can use the index on the column.
[[nodiscard]] std::string id_array_type(const SourceConfig& source, const TableFacts& facts);
// True if ids may hold any character of the database's encoding.
[[nodiscard]] bool ids_are_text(const SourceConfig& source, const TableFacts& facts);
[[nodiscard]] bool scopes_are_json(const SourceConfig& source, const TableFacts& facts);

}  // namespace latchkey
