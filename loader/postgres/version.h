// The version of a table: text that changes with anything that decides whether changes are
// delivered, whether we may read, and what the rows mean. Each heartbeat asks for it.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "config/source.h"

namespace latchkey {

// An expression: the version of the table c, where w, n and s (catalogue::strangers()) are at hand,
// too. It covers
//   - which relation and schema the name leads to, its kind, owner and our right to its schema;
//   - its triggers and their functions; the owner of schema latchkey;
//   - whether row level security applies, its policies, what our role is;
//   - its rules, the tables that it inherits from, which columns are unique;
//   - mapped columns: their catalogue rows (name, type, collation, default of old rows), our right
//     to read them, the expressions that generate them, the types behind them with their labels;
//   - its parts, each with its owner, the file that holds its rows, and since when it is a part;
//   - functions of strangers that reading it would run.
// TRUNCATE gives a table a new file, and fires no trigger of the whole where it names a part. So do
// VACUUM FULL and CLUSTER, which change nothing; they cost a load.
[[nodiscard]] std::string version_sql();

// An expression: JSON text, the array of the versions of all tables that one role reads; null where
// there is no table.
[[nodiscard]] std::string versions_sql(const std::vector<const SourceConfig*>& sources);
// Its answer for as many tables; empty where there is no table. Throws CatalogueError.
[[nodiscard]] std::vector<std::string> versions_from_json(std::string_view json,
                                                          std::size_t tables);

// For the session that heartbeats are asked in. Their question is prepared once, and planned once:
// by itself PostgreSQL would plan the first five answers anew, which takes longer than to give
// them.
[[nodiscard]] std::string heartbeat_settings();

}  // namespace latchkey
