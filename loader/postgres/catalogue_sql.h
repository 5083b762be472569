// Pieces of SQL that several questions to PostgreSQL's catalogue have in common. In them
//   w is a table that somebody asks for: wanted();
//   c is its row in pg_class, n that in pg_namespace: found().
// One statement asks for all tables: PostgreSQL takes longer to get such a statement going than to
// answer it for one table more.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "config/source.h"

namespace latchkey::catalogue {

// The first object identifier that is not PostgreSQL's own (access/transam.h, FirstNormalObjectId).
constexpr const char* kFirstUserOid = "16384";

// Statements, of `set` (SET or SET LOCAL), after which PostgreSQL goes by indexes and nested loops
// only. It cannot tell how few rows our questions have, and would look for a better plan for four
// times as long. And a plan that is kept must not depend on how small the catalogues were.
[[nodiscard]] std::string plan_by_index(std::string_view set);

// A FROM item, w(number, nspname, relname, mapped, writes): the tables of these sources in their
// order, the names of their mapped columns, and whether we write to them.
[[nodiscard]] std::string wanted(const std::vector<const SourceConfig*>& sources);
// FROM items and WHERE that find c and n of w, and what is joined with them.
[[nodiscard]] std::string found(const std::string& joins);
// A join: for each row so far, the rows of `query` (see in_catalog()), which may name those. OFFSET
// keeps PostgreSQL from turning the join round: it would then read all of a catalogue, which may
// hold a hundred thousand tables, to find the few rows of one of them.
[[nodiscard]] std::string each(std::string_view query, std::string_view alias);
// A common table expression, `part`: the table c and all that inherits from it, partitions
// included.
[[nodiscard]] std::string parts();
// `expression` of r, the row of pg_roles of the role that asks.
[[nodiscard]] std::string this_role(const std::string& expression);
// A condition: some policy shows this role every row for `command` (pg_policy.polcmd), and no
// restrictive one takes rows away or runs code of its own.
[[nodiscard]] std::string policies_allow(char command);
// A condition: `name` is that of a trigger of ours.
[[nodiscard]] std::string are_ours(const std::string& name);
// An expression: an array of the names of the columns that the source maps, as w.mapped.
[[nodiscard]] std::string mapped(const SourceConfig& source);
// An expression: which relation it is that has this `oid`, and the numbers and types of its columns
// whose names are in `mapped`, as text.
[[nodiscard]] std::string layout(const std::string& oid, const std::string& mapped);

}  // namespace latchkey::catalogue
