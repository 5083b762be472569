// The DDL that tells us of changes, and the role that may read them.
//
// Printed by `latchkey sql`, run by the operator, never by us.
//
// Statement-level triggers with transition tables: a statement that changes a million rows calls
// the function once, and ids travel many to a notification. An UPDATE counts only if one of the
// mapped columns changed, so that writing last_used_at notifies nobody. Notifications carry ids,
// nothing else: everybody on the database can read them.
//
// The scripts run as an administrator and the function as whoever writes the table. So both pin
// search_path, name the schema of all that they use, and trust nothing that stood there before: a
// schema, function or role of our name may be somebody else's.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "config/source.h"

namespace latchkey {

// The channel that all triggers notify on. Payload, JSON: {"t": table, "ids": ["1", ...]};
// {"t": table, "all": true} after TRUNCATE; {"t": table, "reload": true} where rows changed that
// cannot be named: too many of them, ids too long, a mapped column that is gone.
constexpr const char* kChangeChannel = "latchkey";

// A trigger and the function behind it, as far as what they do depends on it. The catalogue's
// answer is compared with what install_sql() makes, field by field: whatever differs is not ours,
// or of another mapping or version.
struct TriggerDefinition {
  std::string shape;                  // of the trigger: kTriggerShapeSql
  std::string function;               // schema.name
  std::string attributes;             // of the function: kTriggerFunctionSql
  std::vector<std::string> settings;  // its SET clauses (pg_proc.proconfig)
  std::string source;                 // its body (pg_proc.prosrc)

  bool operator==(const TriggerDefinition&) const = default;
};
// Expressions over pg_trigger t, pg_proc p and pg_language pl. Event, level and time; transition
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

// All three print scripts for psql, each one transaction that begins by pinning search_path.
[[nodiscard]] std::string install_sql(const SourceConfig& source);
[[nodiscard]] std::string uninstall_sql(const SourceConfig& source);
[[nodiscard]] std::string grant_sql(const SourceConfig& source, std::string_view role);
// Takes BYPASSRLS, which earlier versions gave, from the role. For after the grants of all sources
// that it reads: policies have its place then.
[[nodiscard]] std::string revoke_bypass_sql(std::string_view role);

// One notification on kChangeChannel, understood.
struct ChangeNotice {
  std::string table;
  bool truncated = false;
  bool reload = false;  // rows changed that it could not name
  std::vector<std::string> ids;

  // Nothing if the payload is not what a trigger of ours sends. It may still name ids that no
  // trigger would (see is_notified_id()).
  [[nodiscard]] static std::optional<ChangeNotice> parse(std::string_view payload);
};

// Could a trigger name this id? A longer one does not fit into a payload, and is told of by
// "reload".
// (In a database that is not UTF-8 its length there counts, which is not known here.)
[[nodiscard]] bool is_notified_id(std::string_view id);

}  // namespace latchkey
