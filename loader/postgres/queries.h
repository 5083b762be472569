// The SQL that reads a source. The load (COPY, binary) and the re-read of single rows (binary
// results) use the same column list, so a row means the same in both.
//
// The SQL calls no code of the table's owner: built-in output functions and casts turn values into
// text, and all named functions, operators and types are in pg_catalog (sql_text.h, Output). The
// server cuts values that are too long to be served, so that they never travel: see the limits
// below.
#pragma once

#include <latchkey/wire.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "config/source.h"
#include "loader/postgres/catalogue.h"
#include "loader/postgres/row_fields.h"

namespace latchkey {

// The meaning of a statement depends on the columns' types: a flag is set if it is not false, a
// time if it is not NULL, and a binary COPY does not report the types of its fields. So the server
// refuses load_sql() and reread_sql() (SQLSTATE kLayoutChanged) if the table has changed since it
// was looked up: another relation of its name, a mapped column of another name, number or type.
constexpr std::string_view kLayoutChanged = "22P02";  // invalid_text_representation
[[nodiscard]] std::string load_sql(const SourceConfig& source, const TableFacts& facts);
// $1 is an array of ids, as text of the array type that id_array_type() names.
[[nodiscard]] std::string reread_sql(const SourceConfig& source, const TableFacts& facts);
// The digest of the whole table: rows of (bucket, rows, sum of row hashes as text); see RowSums and
// RowHasher.
[[nodiscard]] std::string digest_sql(const SourceConfig& source, const TableFacts& facts);
// COPY, binary, of (id as text or as it is stored, row hash) for the rows in these buckets.
[[nodiscard]] std::string digest_rows_sql(const SourceConfig& source, const TableFacts& facts,
                                          const std::vector<std::uint32_t>& buckets);

// Writes the times of last use, forward only. $1: array of ids as for reread_sql(); $2: bigint
// array of the same length, microseconds since 1970. Returns (id text, written boolean) for each
// row with an older time or NULL; `written` is false for a row that another session has locked.
[[nodiscard]] std::string last_used_sql(const SourceConfig& source, const TableFacts& facts);

}  // namespace latchkey
