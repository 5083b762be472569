// The SQL that reads a source. One column list serves the load (COPY, binary) and the re-read of
// single rows (binary results), so that a row means the same whichever way it comes.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "loader/source.h"

namespace latchkey {

// What the catalogue says of a table; read before each load.
struct TableFacts {
  bool exists = false;
  bool is_table = false;                       // ordinary or partitioned
  bool schema_usable = true;                   // this role has USAGE
  bool rows_hidden = false;                    // row level security applies to this role
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

  // From the JSON that inspect_sql() selects.
  [[nodiscard]] static TableFacts from_json(std::string_view json);
};

// Fails if PostgreSQL does not know the source's time zone.
[[nodiscard]] std::string time_zone_sql(const SourceConfig& source);
// One row, one column of JSON text.
[[nodiscard]] std::string inspect_sql(const SourceConfig& source);

// What keeps this source from being served, each a paragraph that says what to do; empty if
// nothing.
[[nodiscard]] std::vector<std::string> problems(const SourceConfig& source,
                                                const TableFacts& facts);

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
  kRowFields
};

[[nodiscard]] std::string load_sql(const SourceConfig& source, const TableFacts& facts);
// $1 is an array of ids, as text of the array type that id_array_type() names.
[[nodiscard]] std::string reread_sql(const SourceConfig& source, const TableFacts& facts);
[[nodiscard]] bool scopes_are_json(const SourceConfig& source, const TableFacts& facts);

// Writes when rows were last used, forward only. $1: array of ids as for reread_sql(); $2: array of
// as many bigint, microseconds since 1970. Answers (id text, written boolean) for each row whose
// time was older or NULL; not written is what somebody else has locked.
[[nodiscard]] std::string last_used_sql(const SourceConfig& source, const TableFacts& facts);

// Is this text an id that the re-read can be asked for? A notification can hold anything.
[[nodiscard]] bool is_id(const SourceConfig& source, const TableFacts& facts, std::string_view id);
// ids -> '{"a","b"}'
[[nodiscard]] std::string array_literal(const std::vector<std::string>& ids);

}  // namespace latchkey
