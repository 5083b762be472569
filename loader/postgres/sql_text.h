// SQL with a meaning that does not depend on the session's search_path.
//
// PostgreSQL looks up an unqualified operator, function or type along search_path, and prefers an
// exact match of the argument types in any schema there to an inexact one in pg_catalog (PostgreSQL
// manual, "Operator Type Resolution"). A user who may create operators in one of these schemas
// could have them run by the role that runs our SQL: the administrator, for the output of `latchkey
// sql`. So all our SQL names the schema of every object it uses, and avoids the forms that cannot
// (IN, BETWEEN, LIKE, IS DISTINCT FROM, NULLIF, USING). sql_names_test.cpp enforces this.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "config/source.h"

namespace latchkey {

// Replaces each {op} by OPERATOR(pg_catalog.op). Only for constant text: names and literals from
// other sources are appended afterwards.
[[nodiscard]] std::string in_catalog(std::string_view sql);

[[nodiscard]] std::string quote_identifier(std::string_view name);
// "schema"."table"
[[nodiscard]] std::string quoted(const TableName& table);
// Does not depend on standard_conforming_strings.
[[nodiscard]] std::string quote_literal(std::string_view text);
// `body` between dollar quotes with a tag that does not occur in it.
[[nodiscard]] std::string dollar_quote(const std::string& body);

// 'a', 'b'
[[nodiscard]] std::string quoted_list(const std::vector<std::string>& texts);
[[nodiscard]] std::string joined(const std::vector<std::string>& items, std::string_view between);

}  // namespace latchkey
