// What PostgreSQL's catalogue says of a source's table, of its triggers and of the reading role.
//
// Read before each load, and (as a version: text that changes with any of it) by each heartbeat.
// Nothing here runs code of the table's owner: only catalogues are read, and only functions and
// operators of pg_catalog are called.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "loader/source.h"
#include "loader/triggers.h"

namespace latchkey {

// How the values of a column become text without a cast that somebody else has defined.
enum class Output : char {
  kBuiltIn = 'b',    // a type of PostgreSQL's own, or an array of one: its casts are built in, too
  kEnum = 'e',       // an enum, or an array of one: enum_out() or array_out()
  kExtension = 'o',  // a base type that a superuser owns (citext, say): its output function
  kForeign = 'f',    // anything else may run code of its owner: not read
};

struct TableFacts {
  bool exists = false;
  bool is_table = false;           // ordinary or partitioned
  bool schema_usable = true;       // this role has USAGE
  bool by_policy = false;          // row level security applies to this role
  bool rows_hidden = false;        // and no policy shows it all rows
  bool rows_write_hidden = false;  // and no policy lets it update all rows
  bool superuser = false;          // this role is one
  bool bypasses_rls = false;       // this role is none, but sees rows that policies hide
  bool has_parts = false;          // other tables inherit from it: partitions mostly
  bool is_part = false;            // it inherits from another table
  bool subscribed = false;         // logical replication writes to it
  // Name -> type, as format_type() spells it. Of a domain: the type beneath it.
  std::map<std::string, std::string> columns;
  std::map<std::string, Output> outputs;  // of those that are not Output::kBuiltIn
  std::vector<std::string> unreadable;    // columns that this role may not select
  std::vector<std::string> unwritable;    // columns that this role may not update
  std::vector<std::string> unique;        // columns with a unique index of their own
  std::vector<std::string> not_null;
  struct Trigger {
    char enabled = 'D';  // pg_trigger.tgenabled: A = ALWAYS
    TriggerDefinition definition;
    std::string foreign_owner;  // of the function: a role that is not the table owner's; or empty
  };
  std::map<std::string, Trigger> triggers;
  std::string foreign_schema_owner;  // of schema latchkey; likewise
  // Functions that reading (or, where the source maps last_used_at, writing) this table can run as
  // our role, and whose owners could not act as the owners of all tables that our role may read.
  std::vector<std::string> foreign_code;
  std::string owners;          // of the table and its parts, as text
  double rows_estimated = -1;  // PostgreSQL's own guess; negative: it has none
  bool files_tell = false;     // all its parts keep their rows in files of this server
  std::string encoding;        // of the database
  std::string version;         // see versions_sql()

  [[nodiscard]] Output output(const std::string& column) const {
    const auto found = outputs.find(column);
    return found == outputs.end() ? Output::kBuiltIn : found->second;
  }

  // From the JSON that inspect_sql() selects.
  [[nodiscard]] static TableFacts from_json(std::string_view json);
};

// Fails if PostgreSQL does not know the source's time zone.
[[nodiscard]] std::string time_zone_sql(const SourceConfig& source);
// One row, one column of JSON text. `read` are all tables that the role reads for us.
[[nodiscard]] std::string inspect_sql(const SourceConfig& source,
                                      const std::vector<TableName>& read);

// Which server is it? One row: system identifier (null if this role may not know), timeline,
// whether it is in recovery. The identifier is chosen by initdb and shared by all copies of a
// cluster; the timeline grows with each promotion (PostgreSQL manual, "Timelines").
[[nodiscard]] std::string identity_sql(bool may_read_identifier);
// One row, one column: may this role read the system identifier?
[[nodiscard]] std::string identity_rights_sql();

// An expression: the array of what identifies the state of each source's table, as far as the
// delivery of changes and our right to read depend on it: which relation it is, its parts, owners,
// triggers and their functions, policies, expressions that reading evaluates, the role, the files
// in which it and its parts are kept. (TRUNCATE gives a table a new file, and fires no trigger of
// the whole where it names a part. So do VACUUM FULL and CLUSTER, which change nothing; they cost a
// load.) Text that changes with any of them; null where there is no table. Cheap: each heartbeat
// asks for it.
[[nodiscard]] std::string versions_sql(const std::vector<const SourceConfig*>& sources);

}  // namespace latchkey
