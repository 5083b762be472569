#include "loader/triggers.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <array>
#include <cstdio>
#include <nlohmann/json.hpp>

namespace latchkey {
namespace {

using nlohmann::json;

// Room for ids in one payload. PostgreSQL's limit is 8000 bytes (NOTIFY); the rest is for the
// table's name and for the id that crosses the line.
constexpr int kIdsBytesMax = 6000;
// A longer id could not be sent safely with that rest: the whole table is re-read instead.
constexpr int kIdBytesMax = 1000;

// PostgreSQL would cut a longer name, and then two tables might share a function.
constexpr std::size_t kNameBytesMax = 63;

std::string hash_of(std::string_view text) {
  std::array<char, 17> hex{};
  std::snprintf(hex.data(), hex.size(), "%016llx",
                static_cast<unsigned long long>(XXH3_64bits(text.data(), text.size())));
  return hex.data();
}

std::string function_name(const SourceConfig& source) {
  const std::string table = source.table.display();
  std::string name = "notify " + table;
  if (name.size() > kNameBytesMax) name = "notify " + hash_of(table);
  return "latchkey." + quote_identifier(name);
}

// Raw text -> a comment line that cannot end early.
std::string one_line(std::string text) {
  for (char& c : text) {
    if (c == '\n' || c == '\r') c = ' ';
  }
  return text;
}

std::vector<std::string> watched_columns(const SourceConfig& source) {
  if (!source.watched.empty()) return source.watched;
  std::vector<std::string> columns;
  for (const auto& [role, column] : source.columns) {
    if (role != Role::kLastUsedAt) columns.push_back(column);
  }
  return columns;
}

std::string relevant_row(const SourceConfig& source, const std::string& alias) {
  std::string row;
  for (const std::string& column : watched_columns(source)) {
    row += (row.empty() ? "" : ", ") + alias + "." + quote_identifier(column) + "::text";
  }
  return "ROW(" + row + ")";
}

// The function's body but for the line with its fingerprint.
std::string function_body(const SourceConfig& source) {
  const std::string id = quote_identifier(*source.column(Role::kId));
  const std::string tag = quote_literal(source.table.display());
  const std::string all = "    PERFORM pg_notify('" + std::string(kChangeChannel) +
                          "', json_build_object('t', " + tag + ", 'all', true)::text);\n";
  return "DECLARE\n"
         "  changed text[];\n"
         "  payload text;\n"
         "BEGIN\n"
         "  IF TG_OP = 'INSERT' THEN\n"
         "    SELECT array_agg(n." +
         id +
         "::text) INTO changed FROM new_rows n;\n"
         "  ELSIF TG_OP = 'DELETE' THEN\n"
         "    SELECT array_agg(o." +
         id +
         "::text) INTO changed FROM old_rows o;\n"
         "  ELSIF TG_OP = 'UPDATE' THEN\n"
         "    -- Only what matters: a row counts if a mapped column changed. As text, because not\n"
         "    -- every type (json, for one) can be compared.\n"
         "    SELECT array_agg(coalesce(o." +
         id + ", n." + id +
         ")::text) INTO changed\n"
         "      FROM old_rows o FULL JOIN new_rows n ON o." +
         id + "::text = n." + id +
         "::text\n"
         "     WHERE o." +
         id + " IS NULL OR n." + id +
         " IS NULL\n"
         "        OR " +
         relevant_row(source, "o") +
         "\n"
         "           IS DISTINCT FROM\n"
         "           " +
         relevant_row(source, "n") +
         ";\n"
         "  ELSE\n"
         "    -- TRUNCATE\n" +
         all +
         "    RETURN NULL;\n"
         "  END IF;\n"
         "  IF changed IS NULL THEN\n"
         "    RETURN NULL;\n"
         "  END IF;\n"
         "  IF EXISTS (SELECT 1 FROM unnest(changed) AS c (id)\n"
         "              WHERE octet_length(to_json(c.id)::text) > " +
         std::to_string(kIdBytesMax) +
         ") THEN\n"
         "    -- An id too long for a payload.\n" +
         all +
         "    RETURN NULL;\n"
         "  END IF;\n"
         "  FOR payload IN\n"
         "    SELECT json_build_object('t', " +
         tag +
         ", 'ids', json_agg(part.id))::text\n"
         "      FROM (SELECT c.id, sum(octet_length(to_json(c.id)::text) + 2)\n"
         "                         OVER (ROWS UNBOUNDED PRECEDING) / " +
         std::to_string(kIdsBytesMax) +
         " AS chunk\n"
         "              FROM unnest(changed) AS c (id)) AS part\n"
         "     GROUP BY part.chunk::bigint\n"
         "  LOOP\n"
         "    PERFORM pg_notify('" +
         std::string(kChangeChannel) +
         "', payload);\n"
         "  END LOOP;\n"
         "  RETURN NULL;\n"
         "END\n";
}

struct TriggerShape {
  const char* name;
  const char* event;
  const char* tables;  // transition tables
  int type;            // pg_trigger.tgtype; after each statement: the event's bit alone
};
constexpr std::array<TriggerShape, 4> kTriggers = {{
    {"latchkey_insert", "INSERT", " REFERENCING NEW TABLE AS new_rows", 4},
    {"latchkey_update", "UPDATE", " REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows", 16},
    {"latchkey_delete", "DELETE", " REFERENCING OLD TABLE AS old_rows", 8},
    {"latchkey_truncate", "TRUNCATE", "", 32},
}};

std::string header(const SourceConfig& source, std::string_view what, std::string_view who) {
  return one_line("-- Latchkey, source \"" + source.name + "\": " + std::string(what)) +
         "\n-- Run it " + std::string(who) + ", e.g. by piping it into psql -v ON_ERROR_STOP=1.\n";
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

int trigger_type(std::string_view name) {
  for (const TriggerShape& trigger : kTriggers) {
    if (name == trigger.name) return trigger.type;
  }
  return 0;
}

std::string trigger_fingerprint(const SourceConfig& source) {
  std::string shape = function_body(source);
  for (const TriggerShape& trigger : kTriggers) {
    shape += std::string(trigger.name) + trigger.event + trigger.tables;
  }
  return hash_of(shape);
}

std::string install_sql(const SourceConfig& source) {
  const std::string table = source.table.quoted();
  std::string sql =
      header(source, "triggers that tell of changes",
             "as a superuser, or as the table's owner if he may create schema latchkey");
  sql +=
      "BEGIN;\nSET LOCAL client_min_messages = warning;\n"
      "DO $latchkey$ BEGIN\n"
      "  IF pg_catalog.to_regnamespace('latchkey') IS NULL THEN\n"
      "    CREATE SCHEMA latchkey;\n"
      "  END IF;\n"
      "END $latchkey$;\n";
  sql += "CREATE OR REPLACE FUNCTION " + function_name(source) +
         "() RETURNS trigger\n"
         "LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $latchkey$\n"
         "-- latchkey trigger " +
         trigger_fingerprint(source) + "\n" + function_body(source) + "$latchkey$;\n";
  for (const TriggerShape& trigger : kTriggers) {
    const std::string name = trigger.name;
    sql += "DROP TRIGGER IF EXISTS " + name + " ON " + table + ";\n";
    sql += "CREATE TRIGGER " + name + " AFTER " + trigger.event + " ON " + table + trigger.tables +
           "\n  FOR EACH STATEMENT EXECUTE FUNCTION " + function_name(source) + "();\n";
    // ALWAYS: also for sessions that replicate or restore (session_replication_role = replica).
    sql += "ALTER TABLE " + table + " ENABLE ALWAYS TRIGGER " + name + ";\n";
  }
  return sql + "COMMIT;\n";
}

std::string uninstall_sql(const SourceConfig& source) {
  const std::string table = source.table.quoted();
  std::string sql =
      header(source, "removes the triggers and their function", "as the owner of the table");
  sql += "BEGIN;\nSET LOCAL client_min_messages = warning;\n";
  for (const TriggerShape& trigger : kTriggers) {
    sql += "DROP TRIGGER IF EXISTS " + std::string(trigger.name) + " ON " + table + ";\n";
  }
  sql += "DROP FUNCTION IF EXISTS " + function_name(source) + "();\n";
  sql +=
      "DO $latchkey$ BEGIN\n"
      "  -- The schema goes with its last function.\n"
      "  IF pg_catalog.to_regnamespace('latchkey') IS NOT NULL AND NOT EXISTS\n"
      "     (SELECT FROM pg_catalog.pg_depend WHERE refclassid = "
      "'pg_catalog.pg_namespace'::regclass\n"
      "         AND refobjid = pg_catalog.to_regnamespace('latchkey')) THEN\n"
      "    DROP SCHEMA latchkey;\n"
      "  END IF;\n"
      "END $latchkey$;\n";
  return sql + "COMMIT;\n";
}

std::string grant_sql(const SourceConfig& source, std::string_view role) {
  const std::string who = quote_identifier(role);
  std::string columns;
  std::vector<std::string> seen;
  for (const auto& [unused, column] : source.columns) {
    const std::string quoted = quote_identifier(column);
    if (std::ranges::find(seen, quoted) != seen.end()) continue;
    seen.push_back(quoted);
    columns += (columns.empty() ? "" : ", ") + quoted;
  }
  const std::string* last_used = source.column(Role::kLastUsedAt);
  std::string sql = header(
      source,
      last_used == nullptr ? "a role that can read the mapped columns and nothing else"
                           : "a role that can read the mapped columns, and write last_used_at",
      "as a superuser (BYPASSRLS, needed where row level security is on, is theirs to give)");
  sql += "-- Give the role a password, if it is to use one, with \\password in psql.\nBEGIN;\n";
  sql +=
      "DO $latchkey$ BEGIN\n"
      "  IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = " +
      quote_literal(role) +
      ") THEN\n"
      "    CREATE ROLE " +
      who +
      " LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION;\n"
      "  END IF;\n"
      "  EXECUTE pg_catalog.format('GRANT CONNECT ON DATABASE %I TO %I',"
      " pg_catalog.current_database(), " +
      quote_literal(role) +
      ");\n"
      "  -- With row level security the role would see some rows or none, without an error.\n"
      "  IF (SELECT relrowsecurity FROM pg_catalog.pg_class WHERE oid = " +
      quote_literal(source.table.quoted()) +
      "::pg_catalog.regclass) THEN\n"
      "    ALTER ROLE " +
      who +
      " BYPASSRLS;\n"
      "  END IF;\n"
      "END $latchkey$;\n";
  sql += "GRANT USAGE ON SCHEMA " + quote_identifier(source.table.schema) + " TO " + who + ";\n";
  sql += "GRANT SELECT (" + columns + ") ON " + source.table.quoted() + " TO " + who + ";\n";
  if (last_used != nullptr) {
    sql += "GRANT UPDATE (" + quote_identifier(*last_used) + ") ON " + source.table.quoted() +
           " TO " + who + ";\n";
  }
  return sql + "COMMIT;\n";
}

std::optional<ChangeNotice> ChangeNotice::parse(std::string_view payload) {
  const json from = json::parse(payload, nullptr, /*allow_exceptions=*/false);
  if (!from.is_object() || !from.contains("t") || !from["t"].is_string()) return std::nullopt;
  ChangeNotice notice;
  notice.table = from["t"].get<std::string>();
  if (const auto all = from.find("all"); all != from.end()) {
    if (!all->is_boolean() || !all->get<bool>()) return std::nullopt;
    notice.all = true;
    return notice;
  }
  const auto ids = from.find("ids");
  if (ids == from.end() || !ids->is_array()) return std::nullopt;
  for (const json& id : *ids) {
    if (!id.is_string()) return std::nullopt;
    notice.ids.push_back(id.get<std::string>());
  }
  return notice;
}

}  // namespace latchkey
