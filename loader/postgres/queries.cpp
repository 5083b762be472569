#include "loader/postgres/queries.h"

#include "keymap/row_sums.h"
#include "loader/postgres/catalogue_sql.h"
#include "loader/postgres/mapping.h"
#include "loader/postgres/sql_text.h"
#include "loader/postgres/text_converter.h"

namespace latchkey {
namespace {

std::string selection(const SourceConfig& source, const TableFacts& facts) {
  return "SELECT " + fields_of(source, facts) + " FROM " + quoted(source.table) + " t";
}

// The hash that RowHasher computes of the same row. Rows without a key are not part of the source.
std::string hashes(const SourceConfig& source, const TableFacts& facts) {
  return "(SELECT " + id_field_of(source, facts) +
         in_catalog(
             " AS id, ('x' {||} pg_catalog.encode(pg_catalog.substr(pg_catalog.sha256("
             "pg_catalog.record_send(ROW(") +
         hashed_fields_of(source, facts) +
         "))), 1, 8), 'hex'))::pg_catalog.bit(64)::pg_catalog.int8 AS hash FROM " +
         quoted(source.table) + " t WHERE " + has_key(source, facts) + ") h";
}

const std::string kBucket =
    in_catalog("(h.hash {&} ") + std::to_string(RowSums::kBuckets - 1) + ")";

// The column itself, without a cast, if an index on it is usable then.
std::string comparable_id(const SourceConfig& source, const TableFacts& facts) {
  const std::string& type = type_of(source, facts, Role::kId);
  const bool by_itself =
      facts.output(*source.column(Role::kId)) == Output::kBuiltIn &&
      (id_array_type(source, facts) != kTextArray || type == "text" || type == "character varying");
  return by_itself ? qualified(*source.column(Role::kId)) : id_of(source, facts);
}

// Microseconds since 1970, converted to the type of the last_used_at column.
std::string use_time(const SourceConfig& source, const TableFacts& facts, const std::string& us) {
  const std::string& type = type_of(source, facts, Role::kLastUsedAt);
  if (is_integer_type(type)) return "(" + us + in_catalog(" {/} 1000000)");
  const std::string moment = in_catalog("('1970-01-01 00:00:00+00'::pg_catalog.timestamptz {+} (") +
                             us + in_catalog(" {*} '1 microsecond'::pg_catalog.interval))");
  if (type == "timestamp with time zone") return moment;
  const std::string local = "(" + moment + " AT TIME ZONE " + quote_literal(source.time_zone) + ")";
  return type == "date" ? local + "::pg_catalog.date" : local;
}

// Takes the locks that a COPY of this table takes, before the COPY takes its snapshot. Otherwise
// the snapshot would be older than the wait for the locks, and in such a snapshot a table that was
// rewritten or truncated meanwhile is empty (PostgreSQL manual, concurrency control, "Caveats").
std::string locked_first(const SourceConfig& source, const std::string& copy) {
  // Opening a cursor locks the table and its parts, and returns no rows.
  return "DECLARE latchkey_lock CURSOR FOR SELECT FROM " + quoted(source.table) + " t;" + copy;
}

// True, or the statement fails with kLayoutChanged. PostgreSQL evaluates it once, with a snapshot
// taken under the lock that keeps the table's definition.
std::string as_looked_up(const SourceConfig& source, const TableFacts& facts) {
  const std::string oid =
      quote_literal(quoted(source.table)) + "::pg_catalog.regclass::pg_catalog.oid";
  return "(SELECT CASE WHEN l.layout" + in_catalog(" {=} ") + quote_literal(facts.layout) +
         " THEN true ELSE pg_catalog.concat('not ', l.layout)::pg_catalog.bool END FROM (SELECT " +
         catalogue::layout(oid, catalogue::mapped(source)) + " AS layout) l)";
}

}  // namespace

std::string load_sql(const SourceConfig& source, const TableFacts& facts) {
  return locked_first(source, "COPY (" + selection(source, facts) + " WHERE " +
                                  as_looked_up(source, facts) + ") TO STDOUT (FORMAT binary)");
}

std::string reread_sql(const SourceConfig& source, const TableFacts& facts) {
  return selection(source, facts) + " WHERE " + as_looked_up(source, facts) + " AND " +
         comparable_id(source, facts) + in_catalog(" {=} ANY ($1::") +
         id_array_type(source, facts) + ")";
}

// The statement locks the rows that it is going to change, and skips rows that other sessions have
// locked. So it never waits for a row: it cannot be part of a deadlock, in any order in which
// another daemon or the application locks rows, and blocks other sessions only for its own
// duration. The second comparison reads the row as it is when it is locked.
std::string last_used_sql(const SourceConfig& source, const TableFacts& facts) {
  const std::string table = quoted(source.table);
  const std::string column = quote_identifier(*source.column(Role::kLastUsedAt));
  const std::string by_id = comparable_id(source, facts) + in_catalog(" {=} u.id");
  const std::string older = "(t." + column + " IS NULL OR t." + column + in_catalog(" {<} u.at)");
  return "WITH used AS MATERIALIZED (SELECT r.id, " + use_time(source, facts, "r.us") +
         " AS at FROM ROWS FROM (pg_catalog.unnest($1::" + id_array_type(source, facts) +
         "), pg_catalog.unnest($2::pg_catalog.int8[])) AS r(id, us)),"
         " older AS MATERIALIZED (SELECT u.id, u.at FROM used u JOIN " +
         table + " t ON " + by_id + " WHERE " + older +
         "), free AS MATERIALIZED (SELECT u.id, u.at FROM older u JOIN " + table + " t ON " +
         by_id + " WHERE " + older +
         " FOR NO KEY UPDATE OF t SKIP LOCKED),"
         " written AS (UPDATE " +
         table + " t SET " + column + " = u.at FROM free u WHERE " + by_id +
         " RETURNING u.id) SELECT o.id::pg_catalog.text," +
         in_catalog(" o.id {=} ANY (SELECT w.id FROM written w) FROM older o");
}

std::string digest_sql(const SourceConfig& source, const TableFacts& facts) {
  return "SELECT " + kBucket +
         "::pg_catalog.text, pg_catalog.count(*)::pg_catalog.text,"
         " pg_catalog.sum(h.hash)::pg_catalog.text FROM " +
         hashes(source, facts) + " GROUP BY " + kBucket;
}

std::string digest_rows_sql(const SourceConfig& source, const TableFacts& facts,
                            const std::vector<std::uint32_t>& buckets) {
  std::vector<std::string> numbers;
  for (const std::uint32_t bucket : buckets) numbers.push_back(std::to_string(bucket));
  return locked_first(source, "COPY (SELECT h.id, h.hash FROM " + hashes(source, facts) +
                                  " WHERE " + kBucket + in_catalog(" {=} ANY ('{") +
                                  joined(numbers, ",") +
                                  "}'::pg_catalog.int8[])) TO STDOUT (FORMAT binary)");
}

}  // namespace latchkey
