#include "loader/queries.h"

#include <algorithm>
#include <charconv>
#include <nlohmann/json.hpp>

#include "keymap/row_sums.h"
#include "loader/triggers.h"

namespace latchkey {
namespace {

using nlohmann::json;

bool contains(const std::vector<std::string>& list, const std::string& item) {
  return std::ranges::find(list, item) != list.end();
}

std::string joined(const std::vector<std::string>& items, std::string_view between) {
  std::string text;
  for (const std::string& item : items) {
    if (!text.empty()) text += between;
    text += item;
  }
  return text;
}

std::string quoted_list(const std::vector<std::string>& texts) {
  std::vector<std::string> quoted;
  for (const std::string& text : texts) quoted.push_back(quote_literal(text));
  return joined(quoted, ", ");
}

bool starts_with(std::string_view text, std::string_view start) { return text.starts_with(start); }

bool is_integer_type(std::string_view type) {
  return type == "smallint" || type == "integer" || type == "bigint";
}

const std::string& type_of(const SourceConfig& source, const TableFacts& facts, Role role) {
  static const std::string none;
  const std::string* column = source.column(role);
  if (column == nullptr) return none;
  const auto found = facts.columns.find(*column);
  return found == facts.columns.end() ? none : found->second;
}

std::string id_array_type(const SourceConfig& source, const TableFacts& facts) {
  const std::string& type = type_of(source, facts, Role::kId);
  if (is_integer_type(type)) return "bigint[]";
  return type == "uuid" ? "uuid[]" : "text[]";
}

// Rows are versions: a trigger or function that was changed and changed back is another one, and
// what happened in between may have gone unnoticed. (xmin survives freezing.)
std::string version_of(const SourceConfig& source) {
  return "SELECT pg_catalog.concat_ws(' ', c.oid, c.relkind, c.relrowsecurity,"
         " pg_catalog.row_security_active(c.oid),"
         " (SELECT pg_catalog.string_agg(pg_catalog.concat_ws(':', t.oid, t.xmin, t.tgenabled,"
         " p.oid, p.xmin), ' ' ORDER BY t.oid)"
         " FROM pg_catalog.pg_trigger t JOIN pg_catalog.pg_proc p ON p.oid = t.tgfoid"
         " WHERE t.tgrelid = c.oid AND t.tgname IN (" +
         quoted_list(trigger_names()) +
         ")))"
         " FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace"
         " WHERE n.nspname = " +
         quote_literal(source.table.schema) +
         " AND c.relname = " + quote_literal(source.table.table);
}

}  // namespace

// ---- the catalogue

std::string time_zone_sql(const SourceConfig& source) {
  return "SELECT pg_catalog.timezone(" + quote_literal(source.time_zone) +
         ", '2000-01-01'::timestamp)";
}

std::string identity_rights_sql() {
  return "SELECT pg_catalog.has_function_privilege('pg_catalog.pg_control_system()', 'EXECUTE')";
}

std::string identity_sql(bool may_read_identifier) {
  return "SELECT " +
         std::string(may_read_identifier
                         ? "(SELECT system_identifier::text FROM pg_catalog.pg_control_system())"
                         : "NULL::text") +
         // The timeline of what is written now; pg_control_checkpoint() tells that of the last
         // checkpoint, which may be older than the promotion.
         ", CASE WHEN NOT pg_catalog.pg_is_in_recovery() THEN pg_catalog.substr("
         "pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn()), 1, 8) END";
}

std::string versions_sql(const std::vector<const SourceConfig*>& sources) {
  std::string list;
  for (const SourceConfig* source : sources) {
    list += (list.empty() ? "(" : ", (") + version_of(*source) + ")";
  }
  return "pg_catalog.array_to_json(ARRAY[" + list + "]::text[])::text";
}

std::string inspect_sql(const SourceConfig& source) {
  return "SELECT coalesce((SELECT pg_catalog.json_build_object("
         "'is_table', c.relkind IN ('r', 'p'),"
         "'schema_usable', pg_catalog.has_schema_privilege(n.oid, 'USAGE'),"
         "'rows_hidden', pg_catalog.row_security_active(c.oid),"
         "'superuser', (SELECT r.rolsuper FROM pg_catalog.pg_roles r"
         " WHERE r.rolname = current_user),"
         "'has_parts', EXISTS (SELECT FROM pg_catalog.pg_inherits i WHERE i.inhparent = c.oid),"
         "'is_part', EXISTS (SELECT FROM pg_catalog.pg_inherits i WHERE i.inhrelid = c.oid),"
         "'subscribed', EXISTS (SELECT FROM pg_catalog.pg_subscription_rel s"
         " WHERE s.srrelid = c.oid),"
         "'columns', (SELECT pg_catalog.json_object_agg(a.attname,"
         " pg_catalog.format_type(a.atttypid, NULL)) FROM pg_catalog.pg_attribute a"
         " WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped),"
         "'unreadable', (SELECT coalesce(pg_catalog.json_agg(a.attname), '[]')"
         " FROM pg_catalog.pg_attribute a"
         " WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND NOT"
         " pg_catalog.has_column_privilege(c.oid, a.attnum, 'SELECT')),"
         "'unwritable', (SELECT coalesce(pg_catalog.json_agg(a.attname), '[]')"
         " FROM pg_catalog.pg_attribute a"
         " WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND NOT"
         " pg_catalog.has_column_privilege(c.oid, a.attnum, 'UPDATE')),"
         "'not_null', (SELECT coalesce(pg_catalog.json_agg(a.attname), '[]')"
         " FROM pg_catalog.pg_attribute a"
         " WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attnotnull),"
         "'unique', (SELECT coalesce(pg_catalog.json_agg(a.attname), '[]')"
         " FROM pg_catalog.pg_index i"
         " JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]"
         " WHERE i.indrelid = c.oid AND i.indisunique AND i.indisvalid AND i.indnkeyatts = 1"
         " AND i.indpred IS NULL),"
         "'triggers', (SELECT coalesce(pg_catalog.json_object_agg(t.tgname,"
         " pg_catalog.json_build_object('enabled', t.tgenabled, 'type', t.tgtype,"
         " 'whole', t.tgqual IS NULL AND pg_catalog.cardinality(t.tgattr::int2[]) = 0, "
         "'fingerprint',"
         " pg_catalog.substring(p.prosrc, 'latchkey trigger ([0-9a-f]+)'))), '{}')"
         " FROM pg_catalog.pg_trigger t JOIN pg_catalog.pg_proc p ON p.oid = t.tgfoid"
         " WHERE t.tgrelid = c.oid AND NOT t.tgisinternal),"
         // A partitioned table's own figure is there only after ANALYZE; its parts know.
         "'rows_estimated', (SELECT CASE WHEN pg_catalog.min(part.reltuples) >= 0"
         " THEN pg_catalog.sum(part.reltuples) END FROM pg_catalog.pg_class part"
         " WHERE part.relkind = 'r' AND part.oid IN (SELECT c.oid UNION ALL SELECT relid FROM"
         " pg_catalog.pg_partition_tree(CASE WHEN c.relkind = 'p' THEN c.oid END))),"
         "'encoding', pg_catalog.getdatabaseencoding(),"
         "'version', (" +
         version_of(source) +
         ")"
         ") FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace"
         " WHERE n.nspname = " +
         quote_literal(source.table.schema) +
         " AND c.relname = " + quote_literal(source.table.table) + "), '{}')::text";
}

TableFacts TableFacts::from_json(std::string_view text) {
  const json from = json::parse(text);
  TableFacts facts;
  if (from.empty()) return facts;
  facts.exists = true;
  facts.is_table = from.at("is_table").get<bool>();
  facts.schema_usable = from.at("schema_usable").get<bool>();
  from.at("rows_hidden").get_to(facts.rows_hidden);
  from.at("superuser").get_to(facts.superuser);
  from.at("has_parts").get_to(facts.has_parts);
  from.at("is_part").get_to(facts.is_part);
  from.at("subscribed").get_to(facts.subscribed);
  if (!from.at("columns").is_null()) from.at("columns").get_to(facts.columns);
  from.at("unreadable").get_to(facts.unreadable);
  from.at("unwritable").get_to(facts.unwritable);
  from.at("unique").get_to(facts.unique);
  from.at("not_null").get_to(facts.not_null);
  if (!from.at("rows_estimated").is_null()) from.at("rows_estimated").get_to(facts.rows_estimated);
  from.at("encoding").get_to(facts.encoding);
  if (!from.at("version").is_null()) from.at("version").get_to(facts.version);
  for (const auto& [name, trigger] : from.at("triggers").items()) {
    Trigger& known = facts.triggers[name];
    known.enabled = trigger.at("enabled").get<std::string>().at(0);
    trigger.at("type").get_to(known.type);
    trigger.at("whole").get_to(known.whole);
    if (!trigger.at("fingerprint").is_null()) trigger.at("fingerprint").get_to(known.fingerprint);
  }
  return facts;
}

// ---- what is wrong with a source

namespace {

void add(std::vector<LintFinding>& found, Lint lint, const std::string& about,
         const std::string& text) {
  found.push_back({.lint = lint, .count = 0, .about = about, .text = text});
}

void add_column_problems(const SourceConfig& source, const TableFacts& facts,
                         std::vector<LintFinding>& found) {
  const std::string table = source.table.display();
  std::vector<std::string> present;
  for (const auto& [name, type] : facts.columns) present.push_back(name);
  for (const auto& [role, column] : source.columns) {
    const std::string setting = std::string(role_name(role)) + " = \"" + column + "\"";
    if (!facts.columns.contains(column)) {
      add(found, Lint::kColumnMissing, column,
          "table " + table + " has no column \"" + column + "\", which " + setting +
              " names. Its columns are: " + joined(present, ", ") +
              ". Set the right one in [[source]] \"" + source.name + "\".");
    } else if (contains(facts.unreadable, column)) {
      add(found, Lint::kColumnUnreadable, column,
          "the database role may not read column \"" + column + "\" of " + table +
              ". Run what `latchkey sql grant --source " + source.name +
              "` prints, as a superuser.");
    } else if (role == Role::kLastUsedAt && contains(facts.unwritable, column)) {
      add(found, Lint::kColumnUnwritable, column,
          "the database role may not update column \"" + column + "\" of " + table + ", which " +
              setting + " asks for. Run what `latchkey sql grant --source " + source.name +
              "` prints, as a superuser: it gives the role UPDATE on this column alone. Or take"
              " last_used_at out of [[source]] \"" +
              source.name + "\".");
    }
  }
}

void add_type_problems(const SourceConfig& source, const TableFacts& facts,
                       std::vector<LintFinding>& found) {
  const std::string table = source.table.display();
  const std::string& id = *source.column(Role::kId);
  if (!contains(facts.unique, id) || !contains(facts.not_null, id)) {
    add(found, Lint::kIdNotUnique, id,
        "column \"" + id + "\" of " + table +
            " does not identify a row: it needs to be NOT NULL and to have a unique index"
            " of its own. Set `id` in [[source]] \"" +
            source.name + "\" to the primary key.");
  }
  if (facts.encoding == "SQL_ASCII" && id_array_type(source, facts) == "text[]") {
    add(found, Lint::kIdEncoding, id,
        "the database is encoded as SQL_ASCII, so ids of " + table +
            " may hold bytes that are no text, and notifications could not name such a row. Set"
            " `id` in [[source]] \"" +
            source.name + "\" to a unique column of integers or uuids.");
  }
  const std::string& key_type = type_of(source, facts, Role::kKey);
  const bool digested_by_server = source.scheme == Scheme::kPlain ||
                                  source.scheme == Scheme::kJwt || source.scheme == Scheme::kJwtJti;
  const bool raw_digest = (source.scheme == Scheme::kSha256 || source.scheme == Scheme::kHmac) &&
                          source.encoding == Encoding::kRaw;
  if (raw_digest && key_type != "bytea") {
    add(found, Lint::kKeyType, *source.column(Role::kKey),
        "column \"" + *source.column(Role::kKey) + "\" of " + table + " is of type " + key_type +
            ", but encoding = \"raw\" needs bytea. Set encoding = \"hex\" or \"base64\""
            " in [[source]] \"" +
            source.name + "\".");
  } else if (key_type == "bytea" && digested_by_server) {
    add(found, Lint::kKeyType, *source.column(Role::kKey),
        "column \"" + *source.column(Role::kKey) + "\" of " + table +
            " is of type bytea, but scheme = \"" + scheme_name(source.scheme) +
            "\" says that it holds " +
            (source.scheme == Scheme::kJwtJti ? "a jti, as uuid or text" : "keys as text") +
            ". If it holds digests, set `scheme` to \"sha256\" or \"hmac-sha256\" in [[source]] "
            "\"" +
            source.name + "\".");
  } else if (!raw_digest && key_type == "bytea") {
    add(found, Lint::kKeyType, *source.column(Role::kKey),
        "column \"" + *source.column(Role::kKey) + "\" of " + table +
            " is of type bytea, but the scheme and encoding of [[source]] \"" + source.name +
            "\" say that it holds text. Set encoding = \"raw\".");
  }
  if (source.column(Role::kEnabled) != nullptr &&
      type_of(source, facts, Role::kEnabled) != "boolean") {
    add(found, Lint::kFlagType, *source.column(Role::kEnabled),
        "column \"" + *source.column(Role::kEnabled) + "\" of " + table +
            " is not boolean, as `enabled` must be. For a column of words use `status`.");
  }
  for (const Role role : {Role::kExpiresAt, Role::kNotBefore}) {
    const std::string& type = type_of(source, facts, role);
    if (type.empty() || starts_with(type, "timestamp") || type == "date" || is_integer_type(type)) {
      continue;
    }
    add(found, Lint::kTimeType, *source.column(role),
        "column \"" + *source.column(role) + "\" of " + table + " is of type " + type + "; " +
            role_name(role) + " must be a timestamp, a date, or an integer of seconds since 1970.");
  }
  const std::string& used_type = type_of(source, facts, Role::kLastUsedAt);
  if (!used_type.empty() && !starts_with(used_type, "timestamp") && used_type != "date" &&
      used_type != "integer" && used_type != "bigint") {
    add(found, Lint::kTimeType, *source.column(Role::kLastUsedAt),
        "column \"" + *source.column(Role::kLastUsedAt) + "\" of " + table + " is of type " +
            used_type +
            "; last_used_at must be a timestamp, a date, or an integer or bigint that holds seconds"
            " since 1970.");
  }
}

void add_trigger_problems(const SourceConfig& source, const TableFacts& facts,
                          std::vector<LintFinding>& found) {
  std::vector<std::string> missing, disabled, outdated;
  for (const std::string& name : trigger_names()) {
    const auto trigger = facts.triggers.find(name);
    if (trigger == facts.triggers.end()) {
      missing.push_back(name);
    } else if (trigger->second.fingerprint != trigger_fingerprint(source) ||
               trigger->second.type != trigger_type(name) || !trigger->second.whole) {
      outdated.push_back(name);
    } else if (trigger->second.enabled != 'A') {
      disabled.push_back(name);
    }
  }
  const auto report = [&](Lint lint, const std::vector<std::string>& names,
                          const std::string& state) {
    if (names.empty()) return;
    add(found, lint, joined(names, " "),
        "table " + source.table.display() + ": " + (names.size() == 1 ? "trigger " : "triggers ") +
            joined(names, ", ") + " " + state +
            ", so changes would go unnoticed. Run what `latchkey sql install --source " +
            source.name + "` prints (with --config), as a superuser or the table's owner.");
  };
  report(Lint::kTriggerMissing, missing, "missing");
  report(Lint::kTriggerOutdated, outdated, "made for another mapping or version");
  report(Lint::kTriggerDisabled, disabled, "not ENABLE ALWAYS");
}

}  // namespace

std::vector<LintFinding> problems(const SourceConfig& source, const TableFacts& facts) {
  const std::string table = source.table.display();
  std::vector<LintFinding> found;
  if (!facts.exists) {
    add(found, Lint::kTableMissing, "",
        "there is no table " + table +
            " in the database (or its schema is hidden from this role). Set `table` in [[source]]"
            " \"" +
            source.name + "\", or create the table, or point `conninfo` at the right database.");
    return found;
  }
  if (!facts.is_table) {
    add(found, Lint::kNotATable, "",
        table +
            " is not a table. Triggers and unique ids need one: set `table` in [[source]]"
            " \"" +
            source.name + "\" to the table behind it.");
    return found;
  }
  if (!facts.schema_usable) {
    add(found, Lint::kSchemaUnusable, "",
        "the database role may not use schema " + source.table.schema +
            ". Run what `latchkey sql grant --source " + source.name + "` prints, as a superuser.");
    return found;
  }
  add_column_problems(source, facts, found);
  if (found.empty()) add_type_problems(source, facts, found);
  if (facts.rows_hidden) {
    add(found, Lint::kRowsHidden, "",
        "row level security hides rows of " + table +
            " from the database role: it would see some or no keys, and no error. Run what"
            " `latchkey sql grant --source " +
            source.name +
            "` prints, as a superuser: it gives the role BYPASSRLS (and SELECT on the"
            " mapped columns only).");
  }
  add_trigger_problems(source, facts, found);
  return found;
}

// ---- rows

namespace {

std::string qualified(const std::string& column) { return "t." + quote_identifier(column); }

std::string text_of(const SourceConfig& source, Role role) {
  const std::string* column = source.column(role);
  return column == nullptr ? "NULL::text" : qualified(*column) + "::text";
}

// For plain text and JWT the server digests: a stored key never crosses the wire to us.
std::string key_of(const SourceConfig& source, const TableFacts& facts) {
  const std::string column = qualified(*source.column(Role::kKey));
  switch (source.scheme) {
    case Scheme::kJwtJti:
      // The other half of jti_digests().
      if (type_of(source, facts, Role::kKey) == "uuid") {
        return "pg_catalog.sha256(pg_catalog.byteacat(pg_catalog.decode('00', 'hex'),"
               " pg_catalog.uuid_send(" +
               column + ")))";
      }
      [[fallthrough]];
    case Scheme::kPlain:
    case Scheme::kJwt:
      return "pg_catalog.sha256(pg_catalog.convert_to(" + column + "::text, 'UTF8'))";
    case Scheme::kSha256:
    case Scheme::kHmac: break;
  }
  return source.encoding == Encoding::kRaw ? column : column + "::text";
}

// A conversion that PostgreSQL cannot do would fail the whole load for one row's sake. So what lies
// beyond the years 1 to 9999 becomes an infinity: never, or long ago.
std::string time_of(const SourceConfig& source, const TableFacts& facts, Role role) {
  const std::string* name = source.column(role);
  if (name == nullptr) return "NULL::timestamptz";
  const std::string column = qualified(*name);
  const std::string& type = type_of(source, facts, role);
  if (type == "timestamp with time zone") return column;
  const auto bounded = [&](const std::string& first, const std::string& last,
                           const std::string& conversion) {
    return "CASE WHEN " + column + " < " + first + " THEN '-infinity'::timestamptz WHEN " + column +
           " > " + last + " THEN 'infinity'::timestamptz ELSE " + conversion + " END";
  };
  if (is_integer_type(type)) {
    return bounded("-62135596800", "253402300799", "pg_catalog.to_timestamp(" + column + ")");
  }
  return bounded(
      "'0001-01-02'::date", "'9999-12-30'::date",
      "(" + column + "::timestamp AT TIME ZONE " + quote_literal(source.time_zone) + ")");
}

// True when the row says that it is no longer good. A flag that is NULL says so too.
std::string is_set(const SourceConfig& source, const TableFacts& facts, Role role) {
  const bool flag = type_of(source, facts, role) == "boolean";
  return qualified(*source.column(role)) + (flag ? " IS NOT FALSE" : " IS NOT NULL");
}

std::string status_case(const SourceConfig& source) {
  const std::string column = qualified(*source.column(Role::kStatus)) + "::text";
  const auto in = [&](const std::vector<std::string>& values, char letter) {
    if (values.empty()) return std::string();
    return " WHEN " + column + " IN (" + quoted_list(values) + ") THEN '" + letter + "'";
  };
  // Most rows are active, so that comparison comes first. Where lists overlap, the refusing one
  // wins.
  std::vector<std::string> active = source.status_active;
  std::erase_if(active, [&](const std::string& value) {
    return contains(source.status_revoked, value) || contains(source.status_disabled, value);
  });
  return in(active, 'a') + in(source.status_revoked, 'r') + in(source.status_disabled, 'd');
}

std::string state_of(const SourceConfig& source, const TableFacts& facts) {
  std::string cases;
  const auto when = [&](Role role, char letter) {
    if (source.column(role) == nullptr) return;
    cases += " WHEN " + is_set(source, facts, role) + " THEN '" + letter + "'";
  };
  when(Role::kDeletedAt, 'x');
  when(Role::kRevokedAt, 'r');
  when(Role::kDisabledAt, 'd');
  if (const std::string* enabled = source.column(Role::kEnabled)) {
    cases += " WHEN " + qualified(*enabled) + " IS NOT TRUE THEN 'd'";
  }
  if (source.column(Role::kStatus) != nullptr) {
    return "CASE" + cases + status_case(source) + " ELSE 'u' END";
  }
  return cases.empty() ? "'a'::text" : "CASE" + cases + " ELSE 'a' END";
}

// A column that PostgreSQL can send as an integer; else nothing.
std::optional<WireField> integer_field(const SourceConfig& source, const TableFacts& facts,
                                       RowField field, Role role) {
  const std::string& type = type_of(source, facts, role);
  if (type == "bigint") return WireField{field, kInt8};
  if (type == "integer") return WireField{field, kInt4};
  if (type == "smallint") return WireField{field, kInt2};
  return std::nullopt;
}

struct Selected {
  WireField wire;
  std::string sql;
};

std::vector<Selected> selected(const SourceConfig& source, const TableFacts& facts) {
  std::vector<Selected> list;
  const auto add = [&](RowField field, std::uint32_t type, std::string sql) {
    list.push_back({{field, type}, std::move(sql)});
  };
  const auto add_text = [&](RowField field, Role role) {
    if (source.column(role) == nullptr) return;
    if (const auto integer = integer_field(source, facts, field, role)) {
      list.push_back({*integer, qualified(*source.column(role))});
    } else {
      add(field, kText, text_of(source, role));
    }
  };
  const bool text_encoded = (source.scheme == Scheme::kSha256 || source.scheme == Scheme::kHmac) &&
                            source.encoding != Encoding::kRaw;
  add_text(kFieldId, Role::kId);
  add(kFieldKey, text_encoded ? kText : kBytea, key_of(source, facts));
  if (source.column(Role::kKeyVersion) != nullptr) {
    add(kFieldKeyVersion, kText, text_of(source, Role::kKeyVersion));
  }
  add(kFieldState, kText, state_of(source, facts));
  for (const auto& [field, role] :
       {std::pair(kFieldExpires, Role::kExpiresAt), std::pair(kFieldNotBefore, Role::kNotBefore)}) {
    if (source.column(role) != nullptr) add(field, kTimestamptz, time_of(source, facts, role));
  }
  add_text(kFieldSubject, Role::kSubject);
  add_text(kFieldTenant, Role::kTenant);
  for (const auto& [field, role] :
       {std::pair(kFieldScopes, Role::kScopes), std::pair(kFieldMetadata, Role::kMetadata)}) {
    const std::string* column = source.column(role);
    if (column == nullptr) continue;
    const std::string& column_type = type_of(source, facts, role);
    if (column_type == "jsonb") {
      add(field, kJsonb, qualified(*column));
    } else if (role == Role::kScopes && column_type.ends_with("[]")) {
      add(field, kText, "pg_catalog.to_json(" + qualified(*column) + ")::text");
    } else {
      add(field, kText, text_of(source, role));
    }
  }
  if (source.scheme == Scheme::kJwt) {
    add(kFieldJwtClaims, kText,
        "pg_catalog.split_part(" + text_of(source, Role::kKey) + ", '.', 2)");
  }
  if (source.scheme == Scheme::kPlain) {
    add(kFieldShort, kText,
        "CASE WHEN pg_catalog.octet_length(" + text_of(source, Role::kKey) + ") < " +
            std::to_string(kShortKeyBytes) + " THEN 's' END");
  }
  return list;
}

std::string fields_of(const SourceConfig& source, const TableFacts& facts) {
  std::vector<std::string> fields;
  for (Selected& one : selected(source, facts)) fields.push_back(std::move(one.sql));
  return joined(fields, ", ");
}

std::string selection(const SourceConfig& source, const TableFacts& facts) {
  return "SELECT " + fields_of(source, facts) + " FROM " + source.table.quoted() + " t";
}

// The hash that RowHasher computes of the same row. A row without a key is not one of ours.
std::string hashes(const SourceConfig& source, const TableFacts& facts) {
  return "(SELECT " + text_of(source, Role::kId) +
         " AS id, ('x' || pg_catalog.encode(pg_catalog.substr(pg_catalog.sha256("
         "pg_catalog.record_send(ROW(" +
         fields_of(source, facts) + "))), 1, 8), 'hex'))::bit(64)::bigint AS hash FROM " +
         source.table.quoted() + " t WHERE " + qualified(*source.column(Role::kKey)) +
         " IS NOT NULL) h";
}

const std::string kBucket = "(h.hash & " + std::to_string(RowSums::kBuckets - 1) + ")";

// The column itself, without a cast, wherever its index can then be used.
std::string comparable_id(const SourceConfig& source, const TableFacts& facts) {
  const std::string& type = type_of(source, facts, Role::kId);
  const bool by_text =
      id_array_type(source, facts) == "text[]" && type != "text" && type != "character varying";
  return qualified(*source.column(Role::kId)) + (by_text ? "::text" : "");
}

// Microseconds since 1970 as the column of the last use holds them.
std::string use_time(const SourceConfig& source, const TableFacts& facts, const std::string& us) {
  const std::string& type = type_of(source, facts, Role::kLastUsedAt);
  if (is_integer_type(type)) return "(" + us + " / 1000000)";
  const std::string moment =
      "('1970-01-01 00:00:00+00'::timestamptz + " + us + " * '1 microsecond'::interval)";
  if (type == "timestamp with time zone") return moment;
  const std::string local = "(" + moment + " AT TIME ZONE " + quote_literal(source.time_zone) + ")";
  return type == "date" ? local + "::date" : local;
}

bool is_uuid(std::string_view id) {
  if (id.size() != 36) return false;
  for (std::size_t i = 0; i < id.size(); ++i) {
    const bool dash = i == 8 || i == 13 || i == 18 || i == 23;
    const bool hex = (id[i] >= '0' && id[i] <= '9') || (id[i] >= 'a' && id[i] <= 'f');
    if (dash ? id[i] != '-' : !hex) return false;
  }
  return true;
}

bool is_int64(std::string_view id) {
  std::int64_t value = 0;
  const auto [end, error] = std::from_chars(id.data(), id.data() + id.size(), value);
  return error == std::errc() && end == id.data() + id.size();
}

}  // namespace

std::string load_sql(const SourceConfig& source, const TableFacts& facts) {
  return "COPY (" + selection(source, facts) + ") TO STDOUT (FORMAT binary)";
}

std::string reread_sql(const SourceConfig& source, const TableFacts& facts) {
  return selection(source, facts) + " WHERE " + comparable_id(source, facts) +
         " = ANY ($1::" + id_array_type(source, facts) + ")";
}

// It locks what it is going to change, and skips what somebody else has locked. So it never waits
// for a row: it can be part of no deadlock, whatever the order in which another daemon or the
// application locks rows, and holds back nobody for longer than itself takes. The second comparison
// is with the row as it is when it is locked.
std::string last_used_sql(const SourceConfig& source, const TableFacts& facts) {
  const std::string table = source.table.quoted();
  const std::string column = quote_identifier(*source.column(Role::kLastUsedAt));
  const std::string by_id = comparable_id(source, facts) + " = u.id";
  const std::string older = "(t." + column + " IS NULL OR t." + column + " < u.at)";
  return "WITH used AS MATERIALIZED (SELECT r.id, " + use_time(source, facts, "r.us") +
         " AS at FROM ROWS FROM (pg_catalog.unnest($1::" + id_array_type(source, facts) +
         "), pg_catalog.unnest($2::bigint[])) AS r (id, us)),"
         " older AS MATERIALIZED (SELECT u.id, u.at FROM used u JOIN " +
         table + " t ON " + by_id + " WHERE " + older +
         "), free AS MATERIALIZED (SELECT u.id, u.at FROM older u JOIN " + table + " t ON " +
         by_id + " WHERE " + older +
         " FOR NO KEY UPDATE OF t SKIP LOCKED),"
         " written AS (UPDATE " +
         table + " t SET " + column + " = u.at FROM free u WHERE " + by_id +
         " RETURNING u.id) SELECT o.id::text, o.id IN (SELECT w.id FROM written w) FROM older o";
}

std::vector<WireField> wire_fields(const SourceConfig& source, const TableFacts& facts) {
  std::vector<WireField> fields;
  for (const Selected& one : selected(source, facts)) fields.push_back(one.wire);
  return fields;
}

std::string digest_sql(const SourceConfig& source, const TableFacts& facts) {
  return "SELECT " + kBucket +
         "::text, pg_catalog.count(*)::text, pg_catalog.sum(h.hash)::text FROM " +
         hashes(source, facts) + " GROUP BY " + kBucket;
}

std::string digest_rows_sql(const SourceConfig& source, const TableFacts& facts,
                            const std::vector<std::uint32_t>& buckets) {
  std::vector<std::string> numbers;
  for (const std::uint32_t bucket : buckets) numbers.push_back(std::to_string(bucket));
  return "COPY (SELECT h.id, h.hash FROM " + hashes(source, facts) + " WHERE " + kBucket +
         " = ANY ('{" + joined(numbers, ",") + "}'::bigint[])) TO STDOUT (FORMAT binary)";
}

bool scopes_are_json(const SourceConfig& source, const TableFacts& facts) {
  const std::string& type = type_of(source, facts, Role::kScopes);
  return type == "jsonb" || type == "json" || type.ends_with("[]");
}

bool is_id(const SourceConfig& source, const TableFacts& facts, std::string_view id) {
  const std::string array = id_array_type(source, facts);
  if (array == "bigint[]") return is_int64(id);
  if (array == "uuid[]") return is_uuid(id);
  return id.find('\0') == std::string_view::npos;
}

bool id_may_not_convert(const SourceConfig& source, const TableFacts& facts, std::string_view id) {
  return id_array_type(source, facts) == "text[]" && facts.encoding != "UTF8" &&
         std::ranges::any_of(id, [](char c) { return static_cast<unsigned char>(c) > 0x7F; });
}

std::string array_literal(const std::vector<std::string>& ids) {
  std::string literal = "{";
  for (const std::string& id : ids) {
    if (literal.size() > 1) literal += ',';
    literal += '"';
    for (const char c : id) {
      if (c == '"' || c == '\\') literal += '\\';
      literal += c;
    }
    literal += '"';
  }
  return literal + "}";
}

}  // namespace latchkey
