// The SQL that reads a source. One column list serves the load (COPY, binary) and the re-read of
// single rows (binary results), so that a row means the same whichever way it comes.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "loader/finding.h"
#include "loader/source.h"

namespace latchkey {

// What the catalogue says of a table; read before each load.
struct TableFacts {
  bool exists = false;
  bool is_table = false;                       // ordinary or partitioned
  bool schema_usable = true;                   // this role has USAGE
  bool rows_hidden = false;                    // row level security applies to this role
  bool superuser = false;                      // this role is one
  bool has_parts = false;                      // other tables inherit from it: partitions mostly
  bool is_part = false;                        // it inherits from another table
  bool subscribed = false;                     // logical replication writes to it
  std::map<std::string, std::string> columns;  // name -> type, as format_type() spells it
  std::vector<std::string> unreadable;         // columns that this role may not select
  std::vector<std::string> unwritable;         // columns that this role may not update
  std::vector<std::string> unique;             // columns with a unique index of their own
  std::vector<std::string> not_null;
  struct Trigger {
    char enabled = 'D';       // pg_trigger.tgenabled: A = ALWAYS
    std::string fingerprint;  // of the function behind it; empty if it is not ours
    int type = 0;             // pg_trigger.tgtype: row or statement, before or after, which event
    bool whole = true;        // no WHEN, no list of columns
  };
  std::map<std::string, Trigger> triggers;
  double rows_estimated = -1;  // PostgreSQL's own guess; negative: it has none
  std::string encoding;        // of the database
  std::string version;         // see versions_sql()

  // From the JSON that inspect_sql() selects.
  [[nodiscard]] static TableFacts from_json(std::string_view json);
};

// Fails if PostgreSQL does not know the source's time zone.
[[nodiscard]] std::string time_zone_sql(const SourceConfig& source);
// One row, one column of JSON text.
[[nodiscard]] std::string inspect_sql(const SourceConfig& source);

// Which server is it? One row: system identifier (null if this role may not know), timeline,
// whether it is in recovery. The identifier is chosen by initdb and shared by all copies of a
// cluster; the timeline grows with each promotion (PostgreSQL manual, "Timelines").
[[nodiscard]] std::string identity_sql(bool may_read_identifier);
// One row, one column: may this role read the system identifier?
[[nodiscard]] std::string identity_rights_sql();

// An expression: the array of what identifies the state of each source's table, as far as the
// delivery of changes depends on it: which relation it is, its triggers and their functions, row
// level security. Text that changes with any of them; null where there is no table. Cheap: each
// heartbeat asks for it.
[[nodiscard]] std::string versions_sql(const std::vector<const SourceConfig*>& sources);

// What keeps this source from being served, each a paragraph that says what to do; empty if
// nothing. All are errors.
[[nodiscard]] std::vector<LintFinding> problems(const SourceConfig& source,
                                                const TableFacts& facts);

// A key below this length is reported: 19 hexadecimal digits are 76 random bits at most, and most
// keys that are so short were made up by somebody. The server compares; the key stays there.
constexpr int kShortKeyBytes = 20;

// Fields of a selected row, in this order.
enum RowField {
  kFieldId,          // text
  kFieldKey,         // bytea: 32 bytes; text where the encoding is hex or base64
  kFieldKeyVersion,  // text or null
  kFieldState,       // one letter: a(ctive) r(evoked) d(isabled) x (deleted) u(nknown status)
  kFieldExpires,     // timestamptz or null
  kFieldNotBefore,   // timestamptz or null
  kFieldSubject,     // text or null
  kFieldTenant,      // text or null
  kFieldScopes,      // text or null: a JSON array, or words (see scopes_are_json)
  kFieldMetadata,    // text or null
  kFieldJwtClaims,   // text or null: the middle part of a JWT, without its signature no credential
  kFieldShort,       // "s" where a key stored in the clear is shorter than kShortKeyBytes, or null
  kRowFields
};

// Which of these fields a row of this table has on its way to us, in this order, and as what. What
// a table does not have is not sent. Integers and jsonb are sent as they are: to make text of them
// would cost the server more than anything else about a row does.
struct WireField {
  RowField field;
  std::uint32_t type;  // as PostgreSQL numbers it (pg_type.dat)
};
constexpr std::uint32_t kBytea = 17, kInt8 = 20, kInt2 = 21, kInt4 = 23, kText = 25,
                        kTimestamptz = 1184, kJsonb = 3802;
[[nodiscard]] std::vector<WireField> wire_fields(const SourceConfig& source,
                                                 const TableFacts& facts);

[[nodiscard]] std::string load_sql(const SourceConfig& source, const TableFacts& facts);
// $1 is an array of ids, as text of the array type that id_array_type() names.
[[nodiscard]] std::string reread_sql(const SourceConfig& source, const TableFacts& facts);
// The digest of the whole table: rows of (bucket, rows, sum of row hashes as text); see RowSums and
// RowHasher.
[[nodiscard]] std::string digest_sql(const SourceConfig& source, const TableFacts& facts);
// COPY, binary, of (id as text, row hash) of the rows in these buckets.
[[nodiscard]] std::string digest_rows_sql(const SourceConfig& source, const TableFacts& facts,
                                          const std::vector<std::uint32_t>& buckets);
[[nodiscard]] bool scopes_are_json(const SourceConfig& source, const TableFacts& facts);

// Writes when rows were last used, forward only. $1: array of ids as for reread_sql(); $2: array of
// as many bigint, microseconds since 1970. Answers (id text, written boolean) for each row whose
// time was older or NULL; not written is what somebody else has locked.
[[nodiscard]] std::string last_used_sql(const SourceConfig& source, const TableFacts& facts);

// Is this text an id that the re-read can be asked for? A notification can hold anything.
[[nodiscard]] bool is_id(const SourceConfig& source, const TableFacts& facts, std::string_view id);
// Could the database fail to convert this id to its own encoding? Then the query that asks for it
// would fail, and whoever forged it would keep others from being asked for.
[[nodiscard]] bool id_may_not_convert(const SourceConfig& source, const TableFacts& facts,
                                      std::string_view id);
// ids -> '{"a","b"}'
[[nodiscard]] std::string array_literal(const std::vector<std::string>& ids);

}  // namespace latchkey
