// Pieces of SQL that several catalogue queries share. In them
//   w is a requested table: wanted();
//   c is its row in pg_class, n its row in pg_namespace: found().
// One statement asks for all tables: PostgreSQL takes longer to start such a statement than to
// answer it for one more table.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "config/source.h"

namespace latchkey::catalogue {

// The first OID of user objects (access/transam.h, FirstNormalObjectId).
constexpr const char* kFirstUserOid = "16384";

// SET or SET LOCAL statements (`set`) after which PostgreSQL uses only indexes and nested loops. It
// cannot estimate how few rows our queries return, and would search for a better plan for four
// times as long. Besides, a plan that is kept must not depend on how small the catalogues were.
[[nodiscard]] std::string plan_by_index(std::string_view set);

// A FROM item, w(number, nspname, relname, mapped, writes): the tables of these sources in their
// order, the names of their mapped columns, and whether we write to them.
[[nodiscard]] std::string wanted(const std::vector<const SourceConfig*>& sources);
// FROM items and a WHERE clause that find c and n of w, and `joins` on them.
[[nodiscard]] std::string found(const std::string& joins);
// A join: for each row so far, the rows of `query` (see in_catalog()), which may refer to that row.
// OFFSET keeps PostgreSQL from reversing the join: it would then read a whole catalogue, which may
// list a hundred thousand tables, to find the few rows of one of them.
[[nodiscard]] std::string each(std::string_view query, std::string_view alias);
// A common table expression, `part`: the table c and all tables that inherit from it, partitions
// included.
[[nodiscard]] std::string parts();
// `expression` over r, the row of the current role in pg_roles.
[[nodiscard]] std::string this_role(const std::string& expression);
// A condition: a permissive policy shows this role every row for `command` (pg_policy.polcmd), and
// no restrictive policy removes rows or runs its own code.
[[nodiscard]] std::string policies_allow(char command);
// A condition: `name` is the name of one of our triggers.
[[nodiscard]] std::string are_ours(const std::string& name);
// An expression: an array of the names of the columns that the source maps, as w.mapped.
[[nodiscard]] std::string mapped(const SourceConfig& source);
// An expression: the relation with this `oid`, and the numbers and types of its columns named in
// `mapped`, as text.
[[nodiscard]] std::string layout(const std::string& oid, const std::string& mapped);

}  // namespace latchkey::catalogue
