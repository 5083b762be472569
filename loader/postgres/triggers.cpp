#include "loader/postgres/triggers.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <utility>

#include "loader/postgres/queries.h"
#include "loader/postgres/sql_text.h"

namespace latchkey {
namespace {

using nlohmann::json;

// Bytes of ids in one payload. PostgreSQL's limit is 8000 bytes (NOTIFY); the rest is for the
// table's name and for the id that crosses kIdsBytesMax.
constexpr int kIdsBytesMax = 6000;
// A longer id might not fit into that rest: the whole table is read instead.
constexpr std::size_t kIdBytesMax = 1000;
// Ids per statement. Above it the daemon would read the whole table, too
// (RefreshSettings::pending_ids_max).
constexpr int kIdsMax = 100'000;

// PostgreSQL would truncate a longer name, and two tables might then share a function.
constexpr std::size_t kNameBytesMax = 63;

std::string hash_of(std::string_view text) {
  std::array<char, 17> hex{};
  std::snprintf(hex.data(), hex.size(), "%016llx",
                static_cast<unsigned long long>(XXH3_64bits(text.data(), text.size())));
  return hex.data();
}

// Without its schema.
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

// Changes of these columns are reported; columns that are only metadata are separate.
struct Watched {
  std::vector<std::string> columns;
  std::vector<std::string> metadata;
};

Watched watched(const SourceConfig& source) {
  if (!source.watched.empty()) return {source.watched, source.watched_metadata};
  Watched own;
  for (const auto& [role, column] : source.columns) {
    if (role == Role::kMetadata) {
      own.metadata.push_back(column);
    } else if (role != Role::kLastUsedAt) {
      own.columns.push_back(column);
    }
  }
  return own;
}

std::string row_of(const std::string& alias, const std::vector<std::string>& columns) {
  std::vector<std::string> fields;
  for (const std::string& column : columns)
    fields.push_back(alias + "." + quote_identifier(column));
  return "ROW(" + joined(fields, ", ") + ")::pg_catalog.record";
}

// The type's output function makes the text, not a cast, which the table's owner may have defined.
// Bytes decide the equality of ids, not the column's collation.
std::string id_text(const SourceConfig& source, const std::string& alias) {
  return "(pg_catalog.concat(" + alias + "." + quote_identifier(*source.column(Role::kId)) +
         ") COLLATE pg_catalog.\"C\")";
}

// The text form of a value depends on these settings (PostgreSQL manual, "Client Connection
// Defaults"): the session that writes the table may have set any of them.
constexpr std::array<std::pair<const char*, const char*>, 8> kFunctionSettings = {{
    {"search_path", "pg_catalog, pg_temp"},
    {"DateStyle", "iso, ymd"},
    {"IntervalStyle", "postgres"},
    {"TimeZone", "UTC"},
    {"bytea_output", "hex"},
    {"extra_float_digits", "1"},
    {"quote_all_identifiers", "off"},
    {"lc_monetary", "C"},
}};

// A value of one of these types that takes more than kStoredBytesMax in memory is too long to be
// served as text: json, text, character, character varying, jsonb (pg_type.dat). Values of other
// types may be compressed when they are stored, and be short enough then.
constexpr const char* kLongAsText = "{114,25,1042,1043,3802}";

// Column of compared(): the row's metadata that are NULL.
constexpr const char* kNulls = "the nulls";

// Since PostgreSQL 14 pg_column_compression() reports whether a value is compressed.
constexpr const char* kTellsCompression =
    "pg_catalog.current_setting('server_version_num')::pg_catalog.int4 {>=} 140000";

// Selects the columns to compare from a transition table, as `alias`. It does not look at metadata
// that are too large to be served: reading and comparing a megabyte would cost the application more
// than its UPDATE. A column that the statement changes is there not yet compressed: it may be
// larger than it will be stored, and short enough then. A compressed value stays compressed. OFFSET
// keeps other columns out of the join, which would copy them.
std::string compared(const SourceConfig& source, const std::string& table, const std::string& alias,
                     bool tells_compression) {
  const Watched columns = watched(source);
  std::string fields = id_text(source, alias) + " AS \"the id\"";
  for (const std::string& column : columns.columns) {
    fields += ", " + alias + "." + quote_identifier(column);
  }
  // Distinguishes NULL from metadata that are not looked at: they differ in an audit.
  std::vector<std::string> nulls;
  for (const std::string& column : columns.metadata) {
    const std::string name = alias + "." + quote_identifier(column);
    nulls.push_back(name + " IS NULL");
    const std::string larger = "pg_catalog.pg_column_size(" + name + in_catalog(") {>} ");
    fields += ",\n                    CASE WHEN ";
    if (tells_compression) {
      fields += larger + std::to_string(kMetadataStoredBytesMax) +
                "\n                          AND pg_catalog.pg_column_compression(" + name +
                ") IS NOT NULL THEN NULL\n                         WHEN ";
    }
    fields += larger + std::to_string(kStoredBytesMax) +
              "\n                          AND pg_catalog.pg_typeof(" + name +
              in_catalog(")::pg_catalog.oid {=} ANY ('") + kLongAsText +
              "'::pg_catalog.oid[]) THEN NULL ELSE " + name + " END AS " + quote_identifier(column);
  }
  if (!nulls.empty()) {
    fields += ", pg_catalog.concat(" + joined(nulls, ", ") + ") AS " + quote_identifier(kNulls);
  }
  return "(SELECT " + fields + "\n               FROM " + table + " " + alias + " OFFSET 0) " +
         alias;
}

std::string differ(const SourceConfig& source) {
  Watched columns = watched(source);
  if (!columns.metadata.empty()) columns.metadata.emplace_back(kNulls);
  std::string differ;
  for (const auto& group : {columns.columns, columns.metadata}) {
    if (group.empty()) continue;
    differ += "\n              OR " + row_of("o", group) + in_catalog("\n                 {*<>} ") +
              row_of("n", group);
  }
  return differ;
}

// A statement that collects the ids of the rows that an UPDATE changed, at most `most`.
std::string changed_by_update(const SourceConfig& source, const std::string& most,
                              bool tells_compression) {
  return "      SELECT pg_catalog.array_agg(c.id) INTO changed\n"
         "        FROM (SELECT CASE WHEN o.\"the id\" IS NULL THEN n.\"the id\" ELSE"
         " o.\"the id\" END AS id\n"
         "        FROM " +
         compared(source, "old_rows", "o", tells_compression) + "\n   FULL JOIN " +
         compared(source, "new_rows", "n", tells_compression) +
         in_catalog(
             "\n          ON o.\"the id\" {=} n.\"the id\"\n"
             "           WHERE o.\"the id\" IS NULL OR n.\"the id\" IS NULL") +
         differ(source) + "\n           LIMIT " + most + ") AS c;\n";
}

std::string notify(const std::string& payload) {
  return "PERFORM pg_catalog.pg_notify('" + std::string(kChangeChannel) + "', " + payload + ");\n";
}

std::string function_body(const SourceConfig& source) {
  const std::string tag = quote_literal(source.table.display());
  const auto whole = [&](const std::string& why) {
    return notify("pg_catalog.json_build_object('t', " + tag + ", '" + why +
                  "', true)::pg_catalog.text");
  };
  const std::string most = std::to_string(kIdsMax + 1);
  const auto ids_of = [&](const std::string& rows, const std::string& alias) {
    return "      SELECT pg_catalog.array_agg(c.id) INTO changed\n"
           "        FROM (SELECT " +
           id_text(source, alias) + " AS id FROM " + rows + " " + alias + " LIMIT " + most +
           ") AS c;\n";
  };
  std::string update = changed_by_update(source, most, false);
  if (!watched(source).metadata.empty()) {
    // PostgreSQL does not analyse a PL/pgSQL statement before it executes it.
    update = "      -- Servers before 14 lack a function of the first statement.\n      IF " +
             in_catalog(kTellsCompression) + " THEN\n" + changed_by_update(source, most, true) +
             "      ELSE\n" + update + "      END IF;\n";
  }
  return in_catalog(
             "\nDECLARE\n"
             "  changed pg_catalog.text[];\n"
             "  payload pg_catalog.text;\n"
             "BEGIN\n"
             "  BEGIN\n"
             "    IF TG_OP {=} 'INSERT' THEN\n") +
         ids_of("new_rows", "n") + in_catalog("    ELSIF TG_OP {=} 'DELETE' THEN\n") +
         ids_of("old_rows", "o") +
         in_catalog(
             "    ELSIF TG_OP {=} 'UPDATE' THEN\n"
             "      -- Only what matters: a row counts if the bytes of a mapped column changed. "
             "No\n"
             "      -- equality of the column's type or collation is asked: that may be "
             "anything.\n") +
         update +
         "    ELSE\n"
         "      -- TRUNCATE\n"
         "      " +
         whole("all") +
         "    END IF;\n"
         "    IF changed IS NULL THEN\n"
         "      RETURN NULL;\n"
         "    END IF;\n"
         "    IF pg_catalog.cardinality(changed)" +
         in_catalog(" {>} ") + std::to_string(kIdsMax) +
         " OR EXISTS\n"
         "       (SELECT 1 FROM pg_catalog.unnest(changed) AS c(id)\n"
         "         WHERE pg_catalog.octet_length(pg_catalog.to_json(c.id)::pg_catalog.text)" +
         in_catalog(" {>} ") + std::to_string(kIdBytesMax) +
         ") THEN\n"
         "      -- More than it pays to name, or an id too long for a payload.\n"
         "      " +
         whole("reload") +
         "      RETURN NULL;\n"
         "    END IF;\n"
         "    FOR payload IN\n"
         "      SELECT pg_catalog.json_build_object('t', " +
         tag +
         ", 'ids', pg_catalog.json_agg(part.id))::pg_catalog.text\n"
         "        FROM (SELECT c.id, pg_catalog.sum(pg_catalog.octet_length(\n"
         "                             pg_catalog.to_json(c.id)::pg_catalog.text)" +
         in_catalog(" {+} 2") +
         ")\n"
         "                           OVER (ROWS UNBOUNDED PRECEDING)" +
         in_catalog(" {/} ") + std::to_string(kIdsBytesMax) +
         " AS chunk\n"
         "                FROM pg_catalog.unnest(changed) AS c(id)) AS part\n"
         "       GROUP BY part.chunk::pg_catalog.int8\n"
         "    LOOP\n"
         "      " +
         notify("payload") +
         "    END LOOP;\n"
         "  EXCEPTION WHEN OTHERS THEN\n"
         "    -- A mapped column may be gone, or there may be no memory to compare rows. The "
         "statement\n"
         "    -- that changed the table must not fail for that: say that something changed.\n"
         "    " +
         whole("reload") +
         "  END;\n"
         "  RETURN NULL;\n"
         "END\n";
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

// The length of to_json(text)::text, as PostgreSQL's escape_json() writes it.
std::size_t json_length(std::string_view text) {
  std::size_t length = 2;
  for (const char c : text) {
    const bool named = c == '"' || c == '\\' || (c >= '\b' && c <= '\r' && c != '\v');
    length += named ? 2 : static_cast<unsigned char>(c) < 0x20 ? 6 : 1;
  }
  return length;
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

bool is_notified_id(std::string_view id) {
  // JSON escapes only add length.
  return id.size() <= kIdBytesMax && json_length(id) <= kIdBytesMax;
}

std::optional<ChangeNotice> ChangeNotice::parse(std::string_view payload) {
  const json from = json::parse(payload, nullptr, /*allow_exceptions=*/false);
  if (!from.is_object() || !from.contains("t") || !from["t"].is_string()) return std::nullopt;
  ChangeNotice notice;
  notice.table = from["t"].get<std::string>();
  for (const auto& [word, said] :
       {std::pair("all", &notice.truncated), std::pair("reload", &notice.reload)}) {
    const auto whole = from.find(word);
    if (whole == from.end()) continue;
    if (!whole->is_boolean() || !whole->get<bool>()) return std::nullopt;
    *said = true;
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
