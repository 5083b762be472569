// SQL that means the same whatever the session's search_path is.
//
// PostgreSQL looks an unqualified operator, function or type up along search_path, and prefers an
// exact match of the argument types in any schema there to an inexact one in pg_catalog
// (PostgreSQL manual, "Operator Type Resolution"). A user who may create operators in such a
// schema would have them run by whoever runs our SQL: by the administrator, for what `latchkey sql`
// prints. So all our SQL names the schema of everything it uses, and avoids the forms that cannot
// (IN, BETWEEN, LIKE, IS DISTINCT FROM, NULLIF, USING). sql_names_test.cpp holds it to that.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "config/source.h"

namespace latchkey {

// Replaces each {op} by OPERATOR(pg_catalog.op). For constant text only: a name or a literal that
// comes from elsewhere is appended afterwards.
[[nodiscard]] std::string in_catalog(std::string_view sql);

[[nodiscard]] std::string quote_identifier(std::string_view name);
// "schema"."table"
[[nodiscard]] std::string quoted(const TableName& table);
// Means the same whatever standard_conforming_strings says.
[[nodiscard]] std::string quote_literal(std::string_view text);
// `body` between dollar quotes whose tag does not occur in it.
[[nodiscard]] std::string dollar_quote(const std::string& body);

// 'a', 'b'
[[nodiscard]] std::string quoted_list(const std::vector<std::string>& texts);
[[nodiscard]] std::string joined(const std::vector<std::string>& items, std::string_view between);

}  // namespace latchkey
