#include "loader/postgres/queries.h"
#include "loader/lint.h"

#include <algorithm>
#include <charconv>
#include <optional>
#include <tuple>
#include <utility>

#include "keymap/row_sums.h"
#include "loader/postgres/catalogue_sql.h"
#include "loader/postgres/mapping.h"
#include "loader/postgres/sql_text.h"
#include "loader/postgres/text_converter.h"

namespace latchkey {
namespace {

bool contains(const std::vector<std::string>& list, const std::string& item) {
  return std::ranges::find(list, item) != list.end();
}

std::string qualified(const std::string& column) { return "t." + quote_identifier(column); }

bool is_text_type(std::string_view type) {
  return type == "text" || type == "character varying" || type == "character";
}

// A column's value as text: see Output.
std::string text_of(const SourceConfig& source, const TableFacts& facts, Role role) {
  const std::string* name = source.column(role);
  if (name == nullptr) return "NULL::pg_catalog.text";
  const std::string column = qualified(*name);
  const bool array = type_of(source, facts, role).ends_with("[]");
  switch (facts.output(*name)) {
    case Output::kBuiltIn: return column + "::pg_catalog.text";
    case Output::kEnum:
      if (array) return "pg_catalog.textin(pg_catalog.array_out(" + column + "))";
      break;  // enum_out() takes no domain
    case Output::kExtension:
    case Output::kForeign:
    case Output::kNamed: break;
  }
  return "CASE WHEN " + column + " IS NULL THEN NULL ELSE pg_catalog.concat(" + column + ") END";
}

// The id in the triggers' spelling. (It is NOT NULL.)
std::string id_of(const SourceConfig& source, const TableFacts& facts) {
  const std::string& type = type_of(source, facts, Role::kId);
  if (is_text_type(type) || type == "uuid" || is_integer_type(type)) {
    return text_of(source, facts, Role::kId);
  }
  return "pg_catalog.concat(" + qualified(*source.column(Role::kId)) + ")";
}

std::string longer_than(const std::string& text, int bytes) {
  return "pg_catalog.octet_length(" + text + in_catalog(") {>} ") + std::to_string(bytes);
}

std::string too_long(int bytes) {
  return "pg_catalog.repeat('x', " + std::to_string(bytes + 1) + ")";
}

// Expression for `text`, the text form of `column` (of `type`), cut if it is longer than `bytes` or
// its stored size is above `stored_max`.
std::string limited(const std::string& text, const std::string& column, std::string_view type,
                    int bytes, int stored_max = kStoredBytesMax) {
  // PostgreSQL knows the length of a text without reading it.
  if (is_text_type(type)) {
    return "CASE WHEN " + longer_than(text, bytes) + " THEN pg_catalog.substr(" + text + ", 1, " +
           std::to_string(bytes + 1) + ") ELSE " + text + " END";
  }
  const std::string stored = "pg_catalog.pg_column_size(" + column + in_catalog(") {>} ");
  const std::string cut = too_long(bytes);
  return "CASE WHEN " + stored + std::to_string(stored_max) + " THEN " + cut + " WHEN " + stored +
         std::to_string(kStoredBytesSmall) + " AND " + longer_than(text, bytes) + " THEN " + cut +
         " ELSE " + text + " END";
}

std::string limited_text_of(const SourceConfig& source, const TableFacts& facts, Role role,
                            int bytes, int stored_max = kStoredBytesMax) {
  return limited(text_of(source, facts, role), qualified(*source.column(role)),
                 type_of(source, facts, role), bytes, stored_max);
}

// The same for a jsonb, which is sent as jsonb.
std::string limited_jsonb(const std::string& column, int bytes, int stored_max) {
  const std::string stored = "pg_catalog.pg_column_size(" + column + in_catalog(") {>} ");
  const std::string cut = "pg_catalog.to_jsonb(" + too_long(bytes) + ")";
  return "CASE WHEN " + stored + std::to_string(stored_max) + " THEN " + cut + " WHEN " + stored +
         std::to_string(kStoredBytesSmall) + " AND " +
         longer_than(column + "::pg_catalog.text", bytes) + " THEN " + cut + " ELSE " + column +
         " END";
}

// The bytes of `text` in the database's encoding: this never fails.
std::string stored_bytes(const std::string& text, const TableFacts& facts) {
  return "pg_catalog.convert_to(" + text + ", " + quote_literal(facts.encoding) + ")";
}

// SHA-256 of `text` in UTF-8.
std::string digest_of(const std::string& text, const TableFacts& facts) {
  if (!is_read_as_stored(facts.encoding)) {
    return "pg_catalog.sha256(pg_catalog.convert_to(" + text + ", 'UTF8'))";
  }
  const std::string digest = "pg_catalog.sha256(" + stored_bytes(text, facts) + ")";
  // SQL_ASCII: a key that is not UTF-8 there cannot be presented.
  if (facts.encoding == "SQL_ASCII") return digest;
  return "CASE WHEN (" + text + ") COLLATE pg_catalog.\"C\"" + in_catalog(" {~} ") +
         quote_literal("[^\\x01-\\x7f]") + " THEN " + quote_literal(std::string(kKeyNotAscii)) +
         "::pg_catalog.bytea ELSE " + digest + " END";
}

// For plain text and JWT the server computes the digest: a stored key never crosses the wire.
std::string key_of(const SourceConfig& source, const TableFacts& facts) {
  const std::string column = qualified(*source.column(Role::kKey));
  const std::string text = text_of(source, facts, Role::kKey);
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
      return "CASE WHEN " + longer_than(text, LATCHKEY_KEY_BYTES_MAX) +
             " THEN ''::pg_catalog.bytea WHEN " + longer_than(text, 0) + " THEN " +
             digest_of(text, facts) + " END";
    case Scheme::kSha256:
    case Scheme::kHmac: break;
  }
  if (source.encoding != Encoding::kRaw) {
    return limited_text_of(source, facts, Role::kKey, kDigestTextBytesMax);
  }
  return "CASE WHEN " + longer_than(column, kDigestTextBytesMax) +
         " THEN ''::pg_catalog.bytea ELSE " + column + " END";
}

std::string epoch_seconds_max() {
  return "'" + std::to_string(kEpochSecondsMax) + "'::pg_catalog.int8";
}

// A conversion error would fail the whole load for the sake of one row. So a date or time beyond
// the years 1 to 9999 becomes an infinity: never, or long ago. An integer must be a number of
// seconds: a value beyond kEpochSecondsMax may count milliseconds, or mean "never", and arrives as
// kNoTime.
std::string time_of(const SourceConfig& source, const TableFacts& facts, Role role) {
  const std::string column = qualified(*source.column(role));
  const std::string& type = type_of(source, facts, role);
  if (type == "timestamp with time zone") return column;
  const auto bounded = [&](const std::string& first, const std::string& before,
                           const std::string& last, const std::string& after,
                           const std::string& conversion) {
    return "CASE WHEN " + column + in_catalog(" {<} ") + first + " THEN '" + before +
           "'::pg_catalog.timestamptz WHEN " + column + in_catalog(" {>} ") + last + " THEN '" +
           after + "'::pg_catalog.timestamptz ELSE " + conversion + " END";
  };
  if (is_integer_type(type)) {
    return bounded("'0'::pg_catalog.int8", kNoTime, epoch_seconds_max(), kNoTime,
                   "pg_catalog.to_timestamp(" + column + ")");
  }
  return bounded("'0001-01-02'::pg_catalog.date", "-infinity", "'9999-12-30'::pg_catalog.date",
                 "infinity",
                 "(" + column + "::pg_catalog.timestamp AT TIME ZONE " +
                     quote_literal(source.time_zone) + ")");
}

// True if the row is no longer good. A flag that is NULL counts as set.
std::string is_set(const SourceConfig& source, const TableFacts& facts, Role role) {
  const bool flag = type_of(source, facts, role) == "boolean";
  return qualified(*source.column(role)) + (flag ? " IS NOT FALSE" : " IS NOT NULL");
}

std::string status_case(const SourceConfig& source, const TableFacts& facts) {
  const std::string status =
      "(" + text_of(source, facts, Role::kStatus) + ") COLLATE pg_catalog.\"C\"";
  const auto in = [&](const std::vector<std::string>& values, char letter) {
    if (values.empty()) return std::string();
    const std::string list = values.size() == 1
                                 ? quote_literal(values.front())
                                 : "ANY (ARRAY[" + quoted_list(values) + "]::pg_catalog.text[])";
    return " WHEN " + status + in_catalog(" {=} ") + list + " THEN '" + letter + "'";
  };
  // Most rows are active, so that comparison comes first. Where lists overlap, the refusing list
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
    return "CASE" + cases + status_case(source, facts) + " ELSE 'u' END";
  }
  return cases.empty() ? "'a'::pg_catalog.text" : "CASE" + cases + " ELSE 'a' END";
}

// The field if PostgreSQL can send the column as an integer; otherwise nullopt.
std::optional<WireField> integer_field(const SourceConfig& source, const TableFacts& facts,
                                       RowField field, Role role) {
  const std::string& type = type_of(source, facts, role);
  if (type == "bigint") return WireField{field, kInt8};
  if (type == "integer") return WireField{field, kInt4};
  if (type == "smallint") return WireField{field, kInt2};
  return std::nullopt;
}

// An array of scopes as JSON. to_json() would call a cast from the element type to json, if one
// exists, unless the type is PostgreSQL's own.
std::string array_as_json(const SourceConfig& source, const TableFacts& facts) {
  const std::string& column = *source.column(Role::kScopes);
  if (facts.output(column) == Output::kBuiltIn) {
    return "pg_catalog.to_json(" + qualified(column) + ")::pg_catalog.text";
  }
  return "pg_catalog.to_json((pg_catalog.textin(pg_catalog.array_out(" + qualified(column) +
         ")))::pg_catalog.text[])::pg_catalog.text";
}

struct Selected {
  WireField wire;
  std::string sql;
};

std::vector<Selected> selected(const SourceConfig& source, const TableFacts& facts) {
  std::vector<Selected> list;
  const bool as_stored = is_read_as_stored(facts.encoding);
  const auto add = [&](RowField field, std::uint32_t type, std::string sql) {
    if (as_stored && type == kJsonb) {
      sql = "(" + sql + ")::pg_catalog.text";
      type = kText;
    }
    if (as_stored && type == kText) {
      list.push_back({{field, kBytea, true}, stored_bytes(sql, facts)});
    } else {
      list.push_back({{field, type}, std::move(sql)});
    }
  };
  const auto add_text = [&](RowField field, Role role) {
    if (source.column(role) == nullptr) return;
    if (const auto integer = integer_field(source, facts, field, role)) {
      list.push_back({*integer, qualified(*source.column(role))});
    } else {
      const std::string text =
          role == Role::kId ? id_of(source, facts) : text_of(source, facts, role);
      add(field, kText,
          limited(text, qualified(*source.column(role)), type_of(source, facts, role),
                  kTextBytesMax));
    }
  };
  const bool text_encoded = (source.scheme == Scheme::kSha256 || source.scheme == Scheme::kHmac) &&
                            source.encoding != Encoding::kRaw;
  add_text(kFieldId, Role::kId);
  add(kFieldKey, text_encoded ? kText : kBytea, key_of(source, facts));
  if (source.column(Role::kKeyVersion) != nullptr) {
    add(kFieldKeyVersion, kText,
        limited_text_of(source, facts, Role::kKeyVersion, kKeyVersionBytesMax));
  }
  add(kFieldState, kText, state_of(source, facts));
  for (const auto& [field, role] :
       {std::pair(kFieldExpires, Role::kExpiresAt), std::pair(kFieldNotBefore, Role::kNotBefore)}) {
    if (source.column(role) != nullptr) add(field, kTimestamptz, time_of(source, facts, role));
  }
  add_text(kFieldSubject, Role::kSubject);
  add_text(kFieldTenant, Role::kTenant);
  for (const auto& [field, role, bytes, stored_max] :
       {std::tuple(kFieldScopes, Role::kScopes, kScopesBytesMax, kStoredBytesMax),
        std::tuple(kFieldMetadata, Role::kMetadata, kTextBytesMax, kMetadataStoredBytesMax)}) {
    const std::string* name = source.column(role);
    if (name == nullptr) continue;
    const std::string column = qualified(*name);
    const std::string& type = type_of(source, facts, role);
    if (type == "jsonb") {
      add(field, kJsonb, limited_jsonb(column, bytes, stored_max));
    } else if (role == Role::kScopes && type.ends_with("[]")) {
      add(field, kText, limited(array_as_json(source, facts), column, type, bytes, stored_max));
    } else if (role == Role::kMetadata && is_text_type(type)) {
      // A text that is too long is dropped: triggers do not report its changes.
      add(field, kText,
          "CASE WHEN " + longer_than(column, bytes) + " THEN " + too_long(bytes) + " ELSE " +
              text_of(source, facts, role) + " END");
    } else {
      add(field, kText, limited_text_of(source, facts, role, bytes, stored_max));
    }
  }
  const std::string key = text_of(source, facts, Role::kKey);
  if (source.scheme == Scheme::kJwt) {
    add(kFieldJwtClaims, kText,
        "CASE WHEN " + longer_than(key, LATCHKEY_KEY_BYTES_MAX) +
            " THEN '' ELSE pg_catalog.split_part(" + key + ", '.', 2) END");
  }
  if (source.scheme == Scheme::kPlain) {
    add(kFieldShort, kText,
        "CASE WHEN pg_catalog.octet_length(" + key + in_catalog(") {<} ") +
            std::to_string(kShortKeyBytes) + " THEN 's' END");
  }
  if (is_integer_type(type_of(source, facts, Role::kLastUsedAt))) {
    const std::string used = qualified(*source.column(Role::kLastUsedAt));
    add(kFieldUseTimeUnit, kText,
        "CASE WHEN " + used + in_catalog(" {<} '0'::pg_catalog.int8 OR ") + used +
            in_catalog(" {>} ") + epoch_seconds_max() + " THEN 'x' END");
  }
  return list;
}

std::string fields_of(const SourceConfig& source, const TableFacts& facts) {
  std::vector<std::string> fields;
  for (Selected& one : selected(source, facts)) fields.push_back(std::move(one.sql));
  return joined(fields, ", ");
}

std::string hashed_fields_of(const SourceConfig& source, const TableFacts& facts) {
  std::vector<std::string> fields;
  for (Selected& one : selected(source, facts)) {
    const bool is_text = one.wire.type == kText;
    fields.push_back(is_hashed(one.wire.field) ? std::move(one.sql)
                     : is_text                 ? "NULL::pg_catalog.text"
                                               : "NULL::pg_catalog.bytea");
  }
  return joined(fields, ", ");
}

std::string selection(const SourceConfig& source, const TableFacts& facts) {
  return "SELECT " + fields_of(source, facts) + " FROM " + quoted(source.table) + " t";
}

// True if the row has a key, that is, if key_of() is not NULL.
std::string has_key(const SourceConfig& source, const TableFacts& facts) {
  const std::string there = qualified(*source.column(Role::kKey)) + " IS NOT NULL";
  const bool by_server =
      source.scheme == Scheme::kPlain || source.scheme == Scheme::kJwt ||
      (source.scheme == Scheme::kJwtJti && type_of(source, facts, Role::kKey) != "uuid");
  return by_server ? there + " AND " + longer_than(text_of(source, facts, Role::kKey), 0) : there;
}

// The hash that RowHasher computes of the same row. Rows without a key are not part of the source.
std::string hashes(const SourceConfig& source, const TableFacts& facts) {
  std::string id = limited(id_of(source, facts), qualified(*source.column(Role::kId)),
                           type_of(source, facts, Role::kId), kTextBytesMax);
  if (is_read_as_stored(facts.encoding)) id = stored_bytes(id, facts);
  return "(SELECT " + id +
         in_catalog(
             " AS id, ('x' {||} pg_catalog.encode(pg_catalog.substr(pg_catalog.sha256("
             "pg_catalog.record_send(ROW(") +
         hashed_fields_of(source, facts) +
         "))), 1, 8), 'hex'))::pg_catalog.bit(64)::pg_catalog.int8 AS hash FROM " +
         quoted(source.table) + " t WHERE " + has_key(source, facts) + ") h";
}

const std::string kBucket =
    in_catalog("(h.hash {&} ") + std::to_string(RowSums::kBuckets - 1) + ")";

// The column itself, without a cast, if an index on it is usable then.
std::string comparable_id(const SourceConfig& source, const TableFacts& facts) {
  const std::string& type = type_of(source, facts, Role::kId);
  const bool by_itself =
      facts.output(*source.column(Role::kId)) == Output::kBuiltIn &&
      (id_array_type(source, facts) != kTextArray || type == "text" || type == "character varying");
  return by_itself ? qualified(*source.column(Role::kId)) : id_of(source, facts);
}

// Microseconds since 1970, converted to the type of the last_used_at column.
std::string use_time(const SourceConfig& source, const TableFacts& facts, const std::string& us) {
  const std::string& type = type_of(source, facts, Role::kLastUsedAt);
  if (is_integer_type(type)) return "(" + us + in_catalog(" {/} 1000000)");
  const std::string moment = in_catalog("('1970-01-01 00:00:00+00'::pg_catalog.timestamptz {+} (") +
                             us + in_catalog(" {*} '1 microsecond'::pg_catalog.interval))");
  if (type == "timestamp with time zone") return moment;
  const std::string local = "(" + moment + " AT TIME ZONE " + quote_literal(source.time_zone) + ")";
  return type == "date" ? local + "::pg_catalog.date" : local;
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

// True for text that numeric_out() may write (PostgreSQL manual, "Arbitrary Precision Numbers").
bool is_numeric(std::string_view id) {
  if (id == "NaN") return true;
  if (id.starts_with('-')) id.remove_prefix(1);
  if (id == "Infinity") return true;
  const auto digits = [](std::string_view text) {
    return !text.empty() && text.find_first_not_of("0123456789") == text.npos;
  };
  const std::size_t point = id.find('.');
  return digits(id.substr(0, point)) && (point == id.npos || digits(id.substr(point + 1)));
}

// True for text that byteaout() may write, with bytea_output = hex.
bool is_bytea(std::string_view id) {
  return id.size() % 2 == 0 && id.starts_with("\\x") &&
         id.find_first_not_of("0123456789abcdef", 2) == id.npos;
}

bool is_int64(std::string_view id) {
  std::int64_t value = 0;
  const auto [end, error] = std::from_chars(id.data(), id.data() + id.size(), value);
  return error == std::errc() && end == id.data() + id.size();
}

// Takes the locks that a COPY of this table takes, before the COPY takes its snapshot. Otherwise
// the snapshot would be older than the wait for the locks, and in such a snapshot a table that was
// rewritten or truncated meanwhile is empty (PostgreSQL manual, concurrency control, "Caveats").
std::string locked_first(const SourceConfig& source, const std::string& copy) {
  // Opening a cursor locks the table and its parts, and returns no rows.
  return "DECLARE latchkey_lock CURSOR FOR SELECT FROM " + quoted(source.table) + " t;" + copy;
}

// True, or the statement fails with kLayoutChanged. PostgreSQL evaluates it once, with a snapshot
// taken under the lock that keeps the table's definition.
std::string as_looked_up(const SourceConfig& source, const TableFacts& facts) {
  const std::string oid =
      quote_literal(quoted(source.table)) + "::pg_catalog.regclass::pg_catalog.oid";
  return "(SELECT CASE WHEN l.layout" + in_catalog(" {=} ") + quote_literal(facts.layout) +
         " THEN true ELSE pg_catalog.concat('not ', l.layout)::pg_catalog.bool END FROM (SELECT " +
         catalogue::layout(oid, catalogue::mapped(source)) + " AS layout) l)";
}

}  // namespace

std::string load_sql(const SourceConfig& source, const TableFacts& facts) {
  return locked_first(source, "COPY (" + selection(source, facts) + " WHERE " +
                                  as_looked_up(source, facts) + ") TO STDOUT (FORMAT binary)");
}

std::string reread_sql(const SourceConfig& source, const TableFacts& facts) {
  return selection(source, facts) + " WHERE " + as_looked_up(source, facts) + " AND " +
         comparable_id(source, facts) + in_catalog(" {=} ANY ($1::") +
         id_array_type(source, facts) + ")";
}

// The statement locks the rows that it is going to change, and skips rows that other sessions have
// locked. So it never waits for a row: it cannot be part of a deadlock, in any order in which
// another daemon or the application locks rows, and blocks other sessions only for its own
// duration. The second comparison reads the row as it is when it is locked.
std::string last_used_sql(const SourceConfig& source, const TableFacts& facts) {
  const std::string table = quoted(source.table);
  const std::string column = quote_identifier(*source.column(Role::kLastUsedAt));
  const std::string by_id = comparable_id(source, facts) + in_catalog(" {=} u.id");
  const std::string older = "(t." + column + " IS NULL OR t." + column + in_catalog(" {<} u.at)");
  return "WITH used AS MATERIALIZED (SELECT r.id, " + use_time(source, facts, "r.us") +
         " AS at FROM ROWS FROM (pg_catalog.unnest($1::" + id_array_type(source, facts) +
         "), pg_catalog.unnest($2::pg_catalog.int8[])) AS r(id, us)),"
         " older AS MATERIALIZED (SELECT u.id, u.at FROM used u JOIN " +
         table + " t ON " + by_id + " WHERE " + older +
         "), free AS MATERIALIZED (SELECT u.id, u.at FROM older u JOIN " + table + " t ON " +
         by_id + " WHERE " + older +
         " FOR NO KEY UPDATE OF t SKIP LOCKED),"
         " written AS (UPDATE " +
         table + " t SET " + column + " = u.at FROM free u WHERE " + by_id +
         " RETURNING u.id) SELECT o.id::pg_catalog.text," +
         in_catalog(" o.id {=} ANY (SELECT w.id FROM written w) FROM older o");
}

std::vector<WireField> wire_fields(const SourceConfig& source, const TableFacts& facts) {
  std::vector<WireField> fields;
  for (const Selected& one : selected(source, facts)) fields.push_back(one.wire);
  return fields;
}

std::string digest_sql(const SourceConfig& source, const TableFacts& facts) {
  return "SELECT " + kBucket +
         "::pg_catalog.text, pg_catalog.count(*)::pg_catalog.text,"
         " pg_catalog.sum(h.hash)::pg_catalog.text FROM " +
         hashes(source, facts) + " GROUP BY " + kBucket;
}

std::string digest_rows_sql(const SourceConfig& source, const TableFacts& facts,
                            const std::vector<std::uint32_t>& buckets) {
  std::vector<std::string> numbers;
  for (const std::uint32_t bucket : buckets) numbers.push_back(std::to_string(bucket));
  return locked_first(source, "COPY (SELECT h.id, h.hash FROM " + hashes(source, facts) +
                                  " WHERE " + kBucket + in_catalog(" {=} ANY ('{") +
                                  joined(numbers, ",") +
                                  "}'::pg_catalog.int8[])) TO STDOUT (FORMAT binary)");
}

std::string_view id_as_read(const SourceConfig& source, const TableFacts& facts,
                            std::string_view id) {
  if (type_of(source, facts, Role::kId) != "character") return id;
  const std::size_t last = id.find_last_not_of(' ');
  return id.substr(0, last == std::string_view::npos ? 0 : last + 1);
}

bool is_id(const SourceConfig& source, const TableFacts& facts, std::string_view id) {
  const std::string array = id_array_type(source, facts);
  if (array == kIntegerArray) return is_int64(id);
  if (array == kUuidArray) return is_uuid(id);
  if (array == kNumericArray) return is_numeric(id);
  if (array == kByteaArray) return is_bytea(id);
  return id.find('\0') == std::string_view::npos;
}

bool id_may_not_convert(const SourceConfig& source, const TableFacts& facts, std::string_view id) {
  return ids_are_text(source, facts) && facts.encoding != "UTF8" && !is_ascii(id);
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
