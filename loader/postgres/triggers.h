// The DDL of the triggers that report changes, and of the role that reads the tables.
//
// `latchkey sql` prints it, and the operator runs it; the daemon never does.
//
// The triggers are statement-level, with transition tables: a statement that changes a million rows
// calls the function once, and one notification carries many ids. An UPDATE counts only if it
// changed a mapped column, so that writing last_used_at sends no notification. Notifications carry
// only ids, because every role of the database can read them.
//
// An administrator runs the scripts, and the writers of the table run the function. So both pin
// search_path, name the schema of every object that they use, and do not trust existing objects: a
// schema, function or role of our name may belong to another role.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "config/source.h"

#include "loader/postgres/change_notice.h"

namespace latchkey {

// The properties of a trigger and its function that decide what they do. The catalogue's values are
// compared with those of install_sql(), field by field: a difference means another mapping, another
// version or a foreign trigger.
struct TriggerDefinition {
  std::string shape;                  // of the trigger: kTriggerShapeSql
  std::string function;               // schema.name
  std::string attributes;             // of the function: kTriggerFunctionSql
  std::vector<std::string> settings;  // its SET clauses (pg_proc.proconfig)
  std::string source;                 // its body (pg_proc.prosrc)

  bool operator==(const TriggerDefinition&) const = default;
};
// Expressions over pg_trigger t, pg_proc p and pg_language pl: event, level and time; transition
// tables; no condition, no arguments, not deferrable, no list of columns.
constexpr const char* kTriggerShapeSql =
    "pg_catalog.concat_ws(' ', t.tgtype, coalesce(t.tgoldtable, '-'), coalesce(t.tgnewtable, '-'),"
    " t.tgqual IS NULL, t.tgnargs, t.tgdeferrable, t.tginitdeferred, t.tgconstraint,"
    " pg_catalog.cardinality(t.tgattr::pg_catalog.int2[]))";
constexpr const char* kTriggerFunctionSql =
    "pg_catalog.concat_ws(' ', pl.lanname, p.prokind, p.provolatile, p.proisstrict, p.prosecdef,"
    " p.proleakproof, p.proretset, p.proparallel, p.pronargs, p.prorettype)";

[[nodiscard]] const std::vector<std::string>& trigger_names();
// The trigger of this name as install_sql() makes it.
[[nodiscard]] TriggerDefinition trigger_definition(const SourceConfig& source,
                                                   std::string_view name);

// Each function returns a psql script: one transaction that begins by pinning search_path.
[[nodiscard]] std::string install_sql(const SourceConfig& source);
[[nodiscard]] std::string uninstall_sql(const SourceConfig& source);
[[nodiscard]] std::string grant_sql(const SourceConfig& source, std::string_view role);
// Removes BYPASSRLS, which earlier versions granted, from the role. Run it after the grants of all
// sources that the role reads: their policies replace it.
[[nodiscard]] std::string revoke_bypass_sql(std::string_view role);

}  // namespace latchkey
