// The facts in PostgreSQL's catalogue about a source's table, its triggers and the reading role.
//
// Each load reads them first, and each heartbeat reads their version: text that changes with any of
// them. The SQL runs no code of the table's owner: it reads only catalogues, and calls only
// functions and operators of pg_catalog.
#pragma once

#include <map>
#include <set>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "config/source.h"
#include "loader/postgres/triggers.h"

namespace latchkey {

// How the values of a column become text without a user-defined cast.
enum class Output : char {
  kBuiltIn = 'b',    // a built-in type, or an array of one: its casts are built in, too
  kEnum = 'e',       // an enum, or an array of one: concat() or array_out()
  kExtension = 'o',  // a base type that a superuser owns (e.g. citext): its output function
  kForeign = 'f',    // any other type may run code of its owner: not read
  // Shown as the name of a catalogue object, which may be renamed: not read.
  kNamed = 'n',
};

// The server's answer has an unexpected form. The message quotes no part of the answer.
class CatalogueError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

struct TableFacts {
  bool exists = false;
  bool is_table = false;           // ordinary or partitioned
  bool schema_usable = true;       // this role has USAGE
  bool by_policy = false;          // row level security applies to this role
  bool rows_hidden = false;        // by_policy, and no policy shows this role all rows
  bool rows_write_hidden = false;  // by_policy, and no policy lets this role update all rows
  bool superuser = false;          // this role is a superuser
  bool bypasses_rls = false;       // this role is no superuser, but sees rows that policies hide
  bool has_parts = false;          // other tables inherit from it: partitions mostly
  bool is_part = false;            // it inherits from another table
  bool subscribed = false;         // logical replication writes to it
  // Name -> type, as format_type() spells it. For a domain: its base type.
  std::map<std::string, std::string> columns;
  std::map<std::string, Output> outputs;  // only those other than Output::kBuiltIn
  std::set<std::string> unreadable;       // columns that this role may not select
  std::set<std::string> unwritable;       // columns that this role may not update
  std::set<std::string> unique;           // columns with a unique index on this column alone
  std::set<std::string> not_null;
  std::set<std::string> with_default;     // an INSERT that omits them may store a value
  std::set<std::string> virtual_columns;  // computed when read (PostgreSQL 18): unknown to triggers
  struct Trigger {
    char enabled = 'D';  // pg_trigger.tgenabled: A = ALWAYS
    TriggerDefinition definition;
    std::string foreign_owner;  // the function's owner, if it cannot act as the table's; else empty
  };
  std::map<std::string, Trigger> triggers;
  std::string foreign_schema_owner;       // the same for schema latchkey
  std::vector<std::string> foreign_code;  // see catalogue::strangers()
  std::string owners;                     // of the table and its parts, as text
  double rows_estimated = -1;             // PostgreSQL's estimate; negative: none
  bool prepared_transactions = false;     // the server allows them
  bool files_tell = false;                // all its parts store their rows in files of this server
  std::string encoding = "UTF8";          // of the database
  std::string layout;                     // see catalogue::layout()
  std::string version;                    // see version_sql()

  [[nodiscard]] Output output(const std::string& column) const {
    const auto found = outputs.find(column);
    return found == outputs.end() ? Output::kBuiltIn : found->second;
  }

  // Parses the JSON that inspect_sql() selects. Throws CatalogueError.
  [[nodiscard]] static TableFacts from_json(std::string_view json);
};

// A query that fails if PostgreSQL does not know the source's time zone.
[[nodiscard]] std::string time_zone_sql(const SourceConfig& source);
// Statements with one result: one row, one column of JSON text. `read`: all sources that the role
// reads for us. `subscriptions`: it may read pg_subscription_rel. `as_stored`: the JSON is sent as
// bytes in the database's encoding, so that no name makes it fail.
[[nodiscard]] std::string inspect_sql(const SourceConfig& source,
                                      const std::vector<const SourceConfig*>& read,
                                      bool subscriptions, bool as_stored);

}  // namespace latchkey
