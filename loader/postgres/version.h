// The version of a table: text that changes with everything that affects whether changes are
// delivered, whether we may read, and the meaning of rows. Each heartbeat reads it.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "config/source.h"

namespace latchkey {

// An expression: the version of the table c, in a query that has w, n and s
// (catalogue::strangers()). It covers
//   - the relation and schema behind the name, its kind, its owner and our right to its schema;
//   - its triggers and their functions; the owner of schema latchkey;
//   - whether row level security applies, its policies, our role's attributes;
//   - its rules, the tables that it inherits from, its unique columns;
//   - mapped columns: their catalogue rows (name, type, collation, default of old rows), our right
//     to read them, the expressions that generate them, the types behind them with their labels;
//   - its parts, each with its owner, the file that holds its rows, and the time since when it is
//     attached;
//   - functions of strangers that reading it would run.
// TRUNCATE gives a table a new file, and fires no trigger of the whole table if it names a part.
// VACUUM FULL and CLUSTER also make a new file, but change no rows; they cost a load.
[[nodiscard]] std::string version_sql();

// An expression: JSON text, the array of the versions of all tables that one role reads; null for a
// table that does not exist.
[[nodiscard]] std::string versions_sql(const std::vector<const SourceConfig*>& sources);
// Parses the answer for this number of tables; empty for a table that does not exist. Throws
// CatalogueError.
[[nodiscard]] std::vector<std::string> versions_from_json(std::string_view json,
                                                          std::size_t tables);

// Settings for the session that runs heartbeats. Their query is prepared and planned once: by
// default PostgreSQL would plan the first five executions anew, which takes longer than the
// answers.
[[nodiscard]] std::string heartbeat_settings();

}  // namespace latchkey
