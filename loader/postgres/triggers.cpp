#include "loader/postgres/triggers.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <utility>

#include "loader/postgres/sql_text.h"
#include "loader/postgres/trigger_function.h"

namespace latchkey {
namespace {

// PostgreSQL would truncate a longer name, and two tables might then share a function.
constexpr std::size_t kNameBytesMax = 63;

std::string hash_of(std::string_view text) {
  std::array<char, 17> hex{};
  std::snprintf(hex.data(), hex.size(), "%016llx",
                static_cast<unsigned long long>(XXH3_64bits(text.data(), text.size())));
  return hex.data();
}

// The name of the trigger function, without its schema.
std::string function_name(const SourceConfig& source) {
  const std::string table = source.table.display();
  std::string name = "notify " + table;
  return name.size() > kNameBytesMax ? "notify " + hash_of(table) : name;
}

std::string quoted_function(const SourceConfig& source) {
  return "latchkey." + quote_identifier(function_name(source));
}

// Makes a comment line of raw text that cannot end early.
std::string one_line(std::string text) {
  for (char& c : text) {
    if (c == '\n' || c == '\r') c = ' ';
  }
  return text;
}

struct TriggerShape {
  const char* name;
  const char* event;
  int type;  // pg_trigger.tgtype; for AFTER, per statement: the event's bit alone
  const char* old_table;
  const char* new_table;
};
constexpr std::array<TriggerShape, 4> kTriggers = {{
    {"latchkey_insert", "INSERT", 4, nullptr, "new_rows"},
    {"latchkey_update", "UPDATE", 16, "old_rows", "new_rows"},
    {"latchkey_delete", "DELETE", 8, "old_rows", nullptr},
    {"latchkey_truncate", "TRUNCATE", 32, nullptr, nullptr},
}};

std::string referencing(const TriggerShape& trigger) {
  std::string tables;
  if (trigger.old_table != nullptr) tables += std::string(" OLD TABLE AS ") + trigger.old_table;
  if (trigger.new_table != nullptr) tables += std::string(" NEW TABLE AS ") + trigger.new_table;
  return tables.empty() ? "" : " REFERENCING" + tables;
}

std::string header(const SourceConfig& source, std::string_view what, std::string_view who) {
  return one_line("-- Latchkey, source \"" + source.name + "\": " + std::string(what)) +
         "\n-- Run it " + std::string(who) + ", e.g. by piping it into psql -v ON_ERROR_STOP=1.\n";
}

// Comes first: the rest must mean the same whatever search_path the administrator's session, ALTER
// ROLE or ALTER DATABASE has set.
constexpr const char* kBegin =
    "BEGIN;\n"
    "SET LOCAL search_path = pg_catalog, pg_temp;\n"
    "SET LOCAL quote_all_identifiers = off;\n"
    "SET LOCAL client_min_messages = warning;\n";

std::string table_oid(const SourceConfig& source) {
  return quote_literal(quoted(source.table)) + "::pg_catalog.regclass::pg_catalog.oid";
}

// An anonymous block with one variable, `who`.
std::string block(const std::string& statements) {
  return "DO " + dollar_quote("\nDECLARE\n  who pg_catalog.text;\nBEGIN\n" + statements + "END ") +
         ";\n";
}

// Raises an error if the query's result, `who`, is not NULL. % in the message stands for it.
std::string refuse(const std::string& query, const std::string& message, const std::string& hint) {
  return "  who := (" + query +
         ");\n"
         "  IF who IS NOT NULL THEN\n"
         "    RAISE EXCEPTION " +
         quote_literal(message) + ", who\n      USING HINT = " + quote_literal(hint) +
         ";\n"
         "  END IF;\n";
}

// Doubles %, which RAISE would read as a placeholder.
std::string raised(std::string text) {
  for (std::size_t at = 0; (at = text.find('%', at)) != std::string::npos; at += 2) {
    text.insert(at, 1, '%');
  }
  return one_line(std::move(text));
}

// A role that can act as the table's owner gains nothing by owning these objects: it has full
// control of the table anyway. Any other owner could change our objects at any time.
std::string owned_by_a_stranger(const SourceConfig& source, const std::string& owner) {
  return "NOT pg_catalog.pg_has_role(" + owner +
         ", (SELECT c.relowner"
         " FROM pg_catalog.pg_class c" +
         in_catalog(" WHERE c.oid {=} ") + table_oid(source) + "), 'MEMBER')";
}

}  // namespace

const std::vector<std::string>& trigger_names() {
  static const std::vector<std::string> names = [] {
    std::vector<std::string> list;
    for (const TriggerShape& trigger : kTriggers) list.emplace_back(trigger.name);
    return list;
  }();
  return names;
}

TriggerDefinition trigger_definition(const SourceConfig& source, std::string_view name) {
  TriggerDefinition definition;
  for (const TriggerShape& trigger : kTriggers) {
    if (name != trigger.name) continue;
    const auto table = [](const char* given) { return std::string(given ? given : "-"); };
    definition.shape = std::to_string(trigger.type) + " " + table(trigger.old_table) + " " +
                       table(trigger.new_table) + " t 0 f f 0 0";
  }
  definition.function = "latchkey." + function_name(source);
  definition.attributes = "plpgsql f v f f f f u 0 2279";  // 2279: trigger (pg_type.dat)
  for (const auto& [setting, value] : kFunctionSettings) {
    definition.settings.push_back(std::string(setting) + "=" + value);
  }
  definition.source = function_body(source);
  return definition;
}

std::string install_sql(const SourceConfig& source) {
  const std::string table = quoted(source.table);
  std::string sql =
      header(source, "triggers that tell of changes",
             "as a superuser, or as the table's owner if he may create schema latchkey") +
      kBegin;
  sql += block(
      "  IF pg_catalog.to_regnamespace('latchkey') IS NULL THEN\n"
      "    CREATE SCHEMA latchkey;\n"
      "  END IF;\n" +
      refuse(in_catalog("SELECT pg_catalog.pg_get_userbyid(l.nspowner) FROM pg_catalog.pg_namespace"
                        " l\n          WHERE l.nspname {=} 'latchkey' AND ") +
                 owned_by_a_stranger(source, "l.nspowner"),
             "schema latchkey belongs to role %, who could replace what stands in it",
             "Find out why it is there. If it is nobody's, run DROP SCHEMA latchkey CASCADE, and"
             " this script again; or have it owned by the table's owner or a superuser."));
  sql += "CREATE OR REPLACE FUNCTION " + quoted_function(source) +
         "() RETURNS pg_catalog.trigger\n"
         "LANGUAGE plpgsql VOLATILE SECURITY INVOKER PARALLEL UNSAFE\n";
  for (const auto& [setting, value] : kFunctionSettings) {
    const bool list = std::string_view(value).find(',') != std::string_view::npos;
    sql += std::string("SET ") + setting + " = " + (list ? value : quote_literal(value)) + "\n";
  }
  sql += "AS " + dollar_quote(function_body(source)) + ";\n";
  // CREATE OR REPLACE keeps the owner of an existing function.
  sql += block(refuse(in_catalog("SELECT pg_catalog.pg_get_userbyid(p.proowner)"
                                 " FROM pg_catalog.pg_proc p\n          WHERE p.oid {=} ") +
                          quote_literal(quoted_function(source) + "()") +
                          "::pg_catalog.regprocedure::pg_catalog.oid AND " +
                          owned_by_a_stranger(source, "p.proowner"),
                      raised("function " + quoted_function(source)) +
                          "() was there before and belongs to role %, who could replace it",
                      "Find out why it is there. Then drop it, with CASCADE, and run this script"
                      " again."));
  for (const TriggerShape& trigger : kTriggers) {
    const std::string name = trigger.name;
    sql += "DROP TRIGGER IF EXISTS " + name + " ON " + table + ";\n";
    sql += "CREATE TRIGGER " + name + " AFTER " + trigger.event + " ON " + table +
           referencing(trigger) + "\n  FOR EACH STATEMENT EXECUTE FUNCTION " +
           quoted_function(source) + "();\n";
    // ALWAYS: also in sessions that replicate or restore (session_replication_role = replica).
    sql += "ALTER TABLE " + table + " ENABLE ALWAYS TRIGGER " + name + ";\n";
  }
  return sql + "COMMIT;\n";
}

std::string uninstall_sql(const SourceConfig& source) {
  const std::string table = quoted(source.table);
  std::string sql =
      header(source, "removes the triggers and their function", "as the owner of the table") +
      kBegin;
  for (const TriggerShape& trigger : kTriggers) {
    sql += "DROP TRIGGER IF EXISTS " + std::string(trigger.name) + " ON " + table + ";\n";
  }
  sql += "DROP FUNCTION IF EXISTS " + quoted_function(source) + "();\n";
  sql += block(
      "  -- The schema goes with its last function.\n"
      "  IF pg_catalog.to_regnamespace('latchkey') IS NOT NULL AND NOT EXISTS\n"
      "     (SELECT FROM pg_catalog.pg_depend d WHERE " +
      in_catalog("d.refclassid {=} 'pg_catalog.pg_namespace'::pg_catalog.regclass"
                 "::pg_catalog.oid\n         AND d.refobjid {=} "
                 "pg_catalog.to_regnamespace('latchkey')::pg_catalog.oid") +
      ") THEN\n"
      "    DROP SCHEMA latchkey;\n"
      "  END IF;\n");
  return sql + "COMMIT;\n";
}

namespace {

std::string mapped_columns(const SourceConfig& source) {
  std::vector<std::string> columns;
  for (const auto& [unused, column] : source.columns) {
    const std::string quoted = quote_identifier(column);
    if (std::ranges::find(columns, quoted) == columns.end()) columns.push_back(quoted);
  }
  return joined(columns, ", ");
}

// Policy names contain the role's name, so that several roles may have policies on one table.
std::string policy(const SourceConfig& source, std::string_view role, std::string_view command,
                   std::string_view terms) {
  std::string name = std::string(role) + "_" + (command == "SELECT" ? "select" : "update");
  if (name.size() > kNameBytesMax) name = "latchkey_" + hash_of(name);
  const std::string table = quoted(source.table);
  return "    DROP POLICY IF EXISTS " + quote_identifier(name) + " ON " + table +
         ";\n    CREATE POLICY " + quote_identifier(name) + " ON " + table + " FOR " +
         std::string(command) + " TO " + quote_identifier(role) + "\n      " + std::string(terms) +
         ";\n";
}

}  // namespace

std::string grant_sql(const SourceConfig& source, std::string_view role) {
  const std::string who = quote_identifier(role), name = quote_literal(role);
  const std::string* last_used = source.column(Role::kLastUsedAt);
  std::string sql = header(
      source,
      last_used == nullptr ? "a role that can read the mapped columns and nothing else"
                           : "a role that can read the mapped columns, and write last_used_at",
      "as a superuser, or as a role that owns the table and the database and may create roles");
  sql += "-- Give the role a password, if it is to use one, with \\password in psql.\n";
  sql += kBegin;
  const std::string this_role = in_catalog("r.rolname {=} ") + name;
  std::string statements =
      "  IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles r WHERE " + this_role +
      ") THEN\n"
      "    CREATE ROLE " +
      who +
      " LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS;\n"
      "  END IF;\n" +
      refuse(in_catalog("SELECT pg_catalog.string_agg(pg_catalog.pg_get_userbyid(m.member)"
                        "::pg_catalog.text, ', ')\n          FROM pg_catalog.pg_auth_members m"
                        " JOIN pg_catalog.pg_roles r ON r.oid {=} m.roleid\n          WHERE ") +
                 this_role + " AND " + owned_by_a_stranger(source, "m.member"),
             raised("role " + std::string(role)) +
                 " was there before, and % may act as it: they would read all keys",
             "REVOKE its membership from them, or name another role in conninfo.") +
      "  EXECUTE pg_catalog.format('GRANT CONNECT ON DATABASE %I TO %I',"
      " pg_catalog.current_database(), " +
      name +
      ");\n"
      "  -- With row level security the role would see some rows or none, without an error.\n"
      "  IF (SELECT c.relrowsecurity FROM pg_catalog.pg_class c WHERE " +
      in_catalog("c.oid {=} ") + table_oid(source) + ") THEN\n" +
      policy(source, role, "SELECT", "USING (true)");
  if (last_used != nullptr) {
    statements += policy(source, role, "UPDATE", "USING (true) WITH CHECK (true)");
  }
  sql += block(statements + "  END IF;\n");
  sql += "GRANT USAGE ON SCHEMA " + quote_identifier(source.table.schema) + " TO " + who + ";\n";
  sql += "GRANT SELECT (" + mapped_columns(source) + ") ON " + quoted(source.table) + " TO " + who +
         ";\n";
  if (last_used != nullptr) {
    sql += "GRANT UPDATE (" + quote_identifier(*last_used) + ") ON " + quoted(source.table) +
           " TO " + who + ";\n";
  }
  return sql + "COMMIT;\n";
}

std::string revoke_bypass_sql(std::string_view role) {
  return "-- Latchkey: earlier versions gave the role BYPASSRLS, which opens every table that is\n"
         "-- protected by row level security alone. The policies above have its place.\n" +
         std::string(kBegin) +
         block(
             "  IF (SELECT r.rolbypassrls AND NOT r.rolsuper FROM pg_catalog.pg_roles r\n"
             "       WHERE " +
             in_catalog("r.rolname {=} ") + quote_literal(role) +
             ") THEN\n"
             "    ALTER ROLE " +
             quote_identifier(role) +
             " NOBYPASSRLS;\n"
             "  END IF;\n") +
         "COMMIT;\n";
}

}  // namespace latchkey
