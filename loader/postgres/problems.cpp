#include "loader/postgres/problems.h"

#include <algorithm>
#include <initializer_list>
#include <set>
#include <string>
#include <string_view>
#include <utility>

#include "loader/postgres/mapping.h"
#include "loader/postgres/sql_text.h"
#include "loader/postgres/triggers.h"

namespace latchkey {
namespace {

// Texts contain names from the catalogue, which the table's owner can make arbitrarily long: all
// findings of all sources must fit into a status.
constexpr std::size_t kFindingBytesMax = 2'000;
constexpr std::size_t kColumnsNamed = 30;

std::string shortened(std::string text, std::size_t bytes_max) {
  if (text.size() <= bytes_max) return text;
  // Do not cut inside a character (UTF-8).
  while (bytes_max > 0 && (static_cast<unsigned char>(text[bytes_max]) & 0xC0) == 0x80) --bytes_max;
  return text.substr(0, bytes_max) + " ...";
}

void add(std::vector<Finding>& found, Lint lint, const std::string& about,
         const std::string& text) {
  found.push_back(
      {.lint = lint, .count = 0, .about = about, .text = shortened(text, kFindingBytesMax)});
}

void add_column_problems(const SourceConfig& source, const TableFacts& facts,
                         std::vector<Finding>& found) {
  const std::string table = source.table.display();
  std::vector<std::string> present;
  for (const auto& [name, type] : facts.columns) {
    present.push_back(present.size() < kColumnsNamed ? name : "...");
    if (present.size() > kColumnsNamed) break;
  }
  for (const auto& [role, column] : source.columns) {
    const std::string setting = std::string(role_name(role)) + " = \"" + column + "\"";
    if (!facts.columns.contains(column)) {
      add(found, Lint::kColumnMissing, column,
          "table " + table + " has no column \"" + column + "\", which " + setting +
              " names. Its columns are: " + joined(present, ", ") +
              ". Set the right one in [[source]] \"" + source.name + "\"." +
              (column.starts_with('"') ? " (Columns are named as they stand in the catalogue:"
                                         " without quotation marks of SQL's.)"
                                       : ""));
    } else if (facts.unreadable.contains(column)) {
      add(found, Lint::kColumnUnreadable, column,
          "the database role may not read column \"" + column + "\" of " + table +
              ". Run what `latchkey sql grant --source " + source.name +
              "` prints, as a superuser.");
    } else if (role == Role::kLastUsedAt && facts.unwritable.contains(column)) {
      add(found, Lint::kColumnUnwritable, column,
          "the database role may not update column \"" + column + "\" of " + table + ", which " +
              setting + " asks for. Run what `latchkey sql grant --source " + source.name +
              "` prints, as a superuser: it gives the role UPDATE on this column alone. Or take"
              " last_used_at out of [[source]] \"" +
              source.name + "\".");
    }
  }
}

// Splits a name into words: is_active, isActive -> is, active.
std::set<std::string> words_of(std::string_view name) {
  std::set<std::string> words;
  std::string word;
  bool was_lower = false;
  for (const char c : name) {
    const bool is_upper = c >= 'A' && c <= 'Z', is_lower = c >= 'a' && c <= 'z';
    if ((!is_upper && !is_lower) || (is_upper && was_lower)) {
      words.insert(std::exchange(word, {}));
    }
    if (is_upper || is_lower) word += static_cast<char>(c | 0x20);
    was_lower = is_lower;
  }
  words.insert(word);
  return words;
}

bool names_one_of(std::string_view column, std::initializer_list<const char*> names) {
  const auto words = words_of(column);
  return std::ranges::any_of(names, [&](const char* name) { return words.contains(name); });
}

// True if the flag's name contradicts its role: keys that must be refused would be accepted.
bool is_opposite_flag(Role role, const std::string& column, const std::string& type) {
  if (type != "boolean" || names_one_of(column, {"not", "no", "non", "un"})) return false;
  const bool says_good = names_one_of(column, {"active", "enabled", "valid", "allowed", "live"});
  const bool says_bad = names_one_of(
      column, {"revoked", "disabled", "deleted", "inactive", "blocked", "banned", "suspended",
               "deactivated", "invalid", "expired", "archived", "removed"});
  if (role == Role::kEnabled) return says_bad && !says_good;
  const bool is_refusal =
      role == Role::kRevokedAt || role == Role::kDisabledAt || role == Role::kDeletedAt;
  return is_refusal && says_good && !says_bad;
}

void add_flag_problems(const SourceConfig& source, const TableFacts& facts,
                       std::vector<Finding>& found) {
  for (const auto& [role, column] : source.columns) {
    if (!is_opposite_flag(role, column, type_of(source, facts, role))) continue;
    const bool is_enabled = role == Role::kEnabled;
    add(found, Lint::kFlagType, column,
        "column \"" + column + "\" of " + source.table.display() +
            " is boolean and, by its name, true where a key is " +
            (is_enabled ? "refused" : "good") + "; as `" + role_name(role) +
            "` it would be true where a key is " + (is_enabled ? "good" : "refused") +
            ". Keys that are " + (is_enabled ? "refused" : "switched off") +
            " would be let in. Map it as " +
            (is_enabled ? "`revoked_at`, `disabled_at` or `deleted_at`, which may be boolean"
                        : "`enabled`") +
            " in [[source]] \"" + source.name + "\".");
  }
}

bool is_text_type(const TableFacts& facts, const std::string& column, std::string_view type) {
  return type == "text" || type.starts_with("character") ||
         facts.output(column) == Output::kExtension;  // citext
}

// True for text, or a type that is presented in its text form. Any other column (a flag, a date, a
// number) was named by mistake, and has values that can be guessed.
bool may_hold_keys(const SourceConfig& source, const TableFacts& facts) {
  const std::string& type = type_of(source, facts, Role::kKey);
  if (is_text_type(facts, *source.column(Role::kKey), type)) return true;
  if (source.scheme == Scheme::kJwtJti) return type == "uuid" || is_integer_type(type);  // signed
  return source.scheme == Scheme::kPlain && type == "uuid";
}

bool may_hold_scopes(const SourceConfig& source, const TableFacts& facts) {
  const std::string& column = *source.column(Role::kScopes);
  std::string_view type = type_of(source, facts, Role::kScopes);
  if (type == "json" || type == "jsonb" || facts.output(column) == Output::kEnum) return true;
  if (type.ends_with("[]")) type.remove_suffix(2);
  return is_text_type(facts, column, type);
}

void add_type_problems(const SourceConfig& source, const TableFacts& facts,
                       std::vector<Finding>& found) {
  const std::string table = source.table.display();
  const std::string& id = *source.column(Role::kId);
  if (!facts.unique.contains(id) || !facts.not_null.contains(id)) {
    add(found, Lint::kIdNotUnique, id,
        "column \"" + id + "\" of " + table +
            " does not identify a row: it needs to be NOT NULL and to have a unique index"
            " of its own. Set `id` in [[source]] \"" +
            source.name +
            "\" to the primary key. (One column of a key of several identifies nothing: give the"
            " table another one, GENERATED ALWAYS AS IDENTITY and UNIQUE.)");
  }
  if (facts.encoding == "SQL_ASCII" && ids_are_text(source, facts)) {
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
  if (!raw_digest && key_type != "bytea" && !may_hold_keys(source, facts)) {
    add(found, Lint::kKeyType, *source.column(Role::kKey),
        "column \"" + *source.column(Role::kKey) + "\" of " + table + " is of type " + key_type +
            ", which holds no keys: whoever presented one of its values as text would be let in."
            " Name a column of text in [[source]] \"" +
            source.name + "\".");
  }
  if (source.column(Role::kScopes) != nullptr && !may_hold_scopes(source, facts)) {
    add(found, Lint::kColumnType, *source.column(Role::kScopes),
        "column \"" + *source.column(Role::kScopes) + "\" of " + table + " is of type " +
            type_of(source, facts, Role::kScopes) +
            ", which holds no scopes that can be told apart: text of words, a JSON array in text,"
            " json or jsonb, or an array of text does. Map another column as scopes in [[source]]"
            " \"" +
            source.name + "\", or none.");
  }
  if (source.column(Role::kEnabled) != nullptr &&
      type_of(source, facts, Role::kEnabled) != "boolean") {
    add(found, Lint::kFlagType, *source.column(Role::kEnabled),
        "column \"" + *source.column(Role::kEnabled) + "\" of " + table +
            " is not boolean, as `enabled` must be. For a column of words use `status`.");
  }
  for (const Role role : {Role::kExpiresAt, Role::kNotBefore}) {
    const std::string& type = type_of(source, facts, role);
    if (type.empty() || type.starts_with("timestamp") || type == "date" || is_integer_type(type)) {
      continue;
    }
    add(found, Lint::kTimeType, *source.column(role),
        "column \"" + *source.column(role) + "\" of " + table + " is of type " + type + "; " +
            role_name(role) + " must be a timestamp, a date, or an integer of seconds since 1970.");
  }
  for (const Role role : {Role::kRevokedAt, Role::kDisabledAt, Role::kDeletedAt}) {
    const std::string& type = type_of(source, facts, role);
    if (type.empty() || type.starts_with("timestamp") || type == "date" || type == "boolean") {
      continue;
    }
    const std::string& column = *source.column(role);
    const bool number = type == "integer" || type == "bigint";
    if (number && !facts.not_null.contains(column) && !facts.with_default.contains(column)) {
      continue;  // a time, or NULL
    }
    add(found, Lint::kTimeType, column,
        "column \"" + column + "\" of " + table + " is of type " + type +
            (number ? " and never NULL, or has a default" : "") + "; " + role_name(role) +
            " must be a timestamp, a date, a boolean, or an integer that is NULL while the row is"
            " good. What else such a column holds then (0, an empty text, \"false\"), nobody can"
            " tell. For a column of words use `status`.");
  }
  const std::string& used_type = type_of(source, facts, Role::kLastUsedAt);
  if (!used_type.empty() && !used_type.starts_with("timestamp") && used_type != "date" &&
      used_type != "integer" && used_type != "bigint") {
    add(found, Lint::kTimeType, *source.column(Role::kLastUsedAt),
        "column \"" + *source.column(Role::kLastUsedAt) + "\" of " + table + " is of type " +
            used_type +
            "; last_used_at must be a timestamp, a date, or an integer or bigint that holds seconds"
            " since 1970.");
  }
}

void add_foreign_problems(const SourceConfig& source, const TableFacts& facts,
                          std::vector<Finding>& found) {
  const std::string table = source.table.display();
  for (const auto& [role, column] : source.columns) {
    if (facts.output(column) != Output::kForeign) continue;
    add(found, Lint::kColumnType, column,
        "column \"" + column + "\" of " + table + " is of type " + facts.columns.at(column) +
            ", which is neither PostgreSQL's own, nor an enum, nor an extension's that a superuser"
            " owns: to read it could run code of the type's owner as the database role. Map"
            " another column as " +
            role_name(role) + " in [[source]] \"" + source.name + "\", or change its type.");
  }
  for (const auto& [role, column] : source.columns) {
    if (facts.output(column) != Output::kNamed) continue;
    add(found, Lint::kColumnType, column,
        "column \"" + column + "\" of " + table + " is of type " + facts.columns.at(column) +
            ": it holds a number, and is shown as the name of what has that number. Whoever renames"
            " that changes what the row says, and no trigger sees it. Map another column as " +
            role_name(role) + " in [[source]] \"" + source.name + "\".");
  }
  for (const auto& [role, column] : source.columns) {
    if (!facts.virtual_columns.contains(column)) continue;
    add(found, Lint::kColumnType, column,
        "column \"" + column + "\" of " + table +
            " is generated and VIRTUAL: PostgreSQL computes it when it is read, and its triggers "
            "do not"
            " see that it changed. Map the columns that it is computed from, or have it STORED.");
  }
  if (!facts.foreign_code.empty()) {
    add(found, Lint::kForeignCode, "",
        std::string("to read ") +
            (source.column(Role::kLastUsedAt) != nullptr ? "or update " : "") + table +
            " can run code as the database role (an index, a check, a policy, a type calls it), and"
            " that code belongs to roles that do not own all tables which this"
            " role reads: " +
            joined(facts.foreign_code, "; ") +
            ". It could read the others' keys. Give [[source]] \"" + source.name +
            "\" a [[database]] of its own with a role of its own, or have a superuser own these"
            " functions.");
  }
  if (facts.superuser && !source.allow_superuser) {
    add(found, Lint::kSuperuserRefused, "",
        "the database role is a superuser. Whoever could make it run code, or get hold of its"
        " password, would own the whole server. Run what `latchkey sql grant` prints, and name that"
        " role in `conninfo` of [[database]] \"" +
            source.database +
            "\". If it has to be a superuser, say so there: allow_superuser = true.");
  }
}

// `mapped`: all columns exist. Triggers are made for a mapping, so the mapping must be corrected
// first.
void add_trigger_problems(const SourceConfig& source, const TableFacts& facts, bool mapped,
                          std::vector<Finding>& found) {
  std::vector<std::string> missing, disabled, outdated, strangers;
  if (!facts.foreign_schema_owner.empty()) {
    strangers.push_back("schema latchkey (" + facts.foreign_schema_owner + ")");
  }
  for (const std::string& name : trigger_names()) {
    const auto trigger = facts.triggers.find(name);
    if (trigger == facts.triggers.end()) {
      missing.push_back(name);
      continue;
    }
    if (const std::string& owner = trigger->second.foreign_owner; !owner.empty()) {
      strangers.push_back("the function of " + name + " (" + owner + ")");
    }
    if (trigger->second.definition != trigger_definition(source, name)) {
      if (mapped) outdated.push_back(name);
    } else if (trigger->second.enabled != 'A') {
      disabled.push_back(name);
    }
  }
  const std::string advice = "Run what `latchkey sql install --source " + source.name +
                             "` prints (with --config), as a superuser or the table's owner.";
  const auto report = [&](Lint lint, const std::vector<std::string>& names,
                          const std::string& state) {
    if (names.empty()) return;
    add(found, lint, joined(names, " "),
        "table " + source.table.display() + ": " + (names.size() == 1 ? "trigger " : "triggers ") +
            joined(names, ", ") + " " + state + ", so changes would go unnoticed. " + advice);
  };
  report(Lint::kTriggerMissing, missing, "missing");
  report(Lint::kTriggerOutdated, outdated, "made for another mapping or version, or changed since");
  report(Lint::kTriggerDisabled, disabled, "not ENABLE ALWAYS");
  if (!strangers.empty()) {
    add(found, Lint::kForeignOwner, "",
        "table " + source.table.display() + ": " + joined(strangers, ", ") +
            (strangers.size() == 1 ? " belongs to a role" : " belong to roles") +
            " that could not act as the table's owner, and could change what tells of changes." +
            " Find out why; drop it (with CASCADE) or give it to the table's owner. " + advice);
  }
}

}  // namespace

std::vector<Finding> problems(const SourceConfig& source, const TableFacts& facts) {
  const std::string table = source.table.display();
  std::vector<Finding> found;
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
  const bool mapped = std::ranges::none_of(
      found, [](const Finding& one) { return one.lint == Lint::kColumnMissing; });
  if (found.empty()) {
    add_type_problems(source, facts, found);
    add_flag_problems(source, facts, found);
  }
  add_foreign_problems(source, facts, found);
  const bool writes = source.column(Role::kLastUsedAt) != nullptr;
  if (facts.rows_hidden || (writes && facts.rows_write_hidden)) {
    add(found, Lint::kRowsHidden, "",
        "row level security hides rows of " + table + " from the database role: it would " +
            (facts.rows_hidden ? "see some or no keys, and no error"
                               : "write last_used_at of some or no rows, and no error") +
            ". Run what `latchkey sql grant --source " + source.name +
            "` prints, as a superuser: it makes a policy for this role alone (it may select the"
            " mapped columns of all rows). No restrictive policy may apply to the role.");
  }
  add_trigger_problems(source, facts, mapped, found);
  return found;
}

}  // namespace latchkey
