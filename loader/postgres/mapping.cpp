#include "loader/postgres/mapping.h"

namespace latchkey {

const std::string& type_of(const SourceConfig& source, const TableFacts& facts, Role role) {
  static const std::string none;
  const std::string* column = source.column(role);
  if (column == nullptr) return none;
  const auto found = facts.columns.find(*column);
  return found == facts.columns.end() ? none : found->second;
}

bool is_integer_type(std::string_view type) {
  return type == "smallint" || type == "integer" || type == "bigint";
}

std::string id_array_type(const SourceConfig& source, const TableFacts& facts) {
  const std::string& type = type_of(source, facts, Role::kId);
  if (is_integer_type(type)) return kIntegerArray;
  if (type == "uuid") return kUuidArray;
  if (type == "numeric") return kNumericArray;
  if (type == "bytea") return kByteaArray;
  if (type == "character") return kCharacterArray;
  return kTextArray;
}

bool ids_are_text(const SourceConfig& source, const TableFacts& facts) {
  const std::string array = id_array_type(source, facts);
  return array == kTextArray || array == kCharacterArray;
}

bool scopes_are_json(const SourceConfig& source, const TableFacts& facts) {
  const std::string& type = type_of(source, facts, Role::kScopes);
  return type == "jsonb" || type == "json" || type.ends_with("[]");
}

}  // namespace latchkey
