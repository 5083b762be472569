#include "loader/postgres/row_fields.h"

#include <algorithm>
#include <optional>
#include <tuple>
#include <utility>

#include "loader/lint.h"
#include "loader/postgres/catalogue_sql.h"
#include "loader/postgres/mapping.h"
#include "loader/postgres/sql_text.h"
#include "loader/postgres/text_converter.h"

namespace latchkey {

std::string qualified(const std::string& column) { return "t." + quote_identifier(column); }

// The bytes of `text` in the database's encoding: this never fails.
std::string stored_bytes(const std::string& text, const TableFacts& facts) {
  return "pg_catalog.convert_to(" + text + ", " + quote_literal(facts.encoding) + ")";
}

std::string epoch_seconds_max() {
  return "'" + std::to_string(kEpochSecondsMax) + "'::pg_catalog.int8";
}

namespace {

bool contains(const std::vector<std::string>& list, const std::string& item) {
  return std::ranges::find(list, item) != list.end();
}

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

// Collects the fields of a table, in RowField order.
class Selection {
 public:
  Selection(const SourceConfig& source, const TableFacts& facts) : source_(source), facts_(facts) {
    add_text(kFieldId, Role::kId);
    add_key();
    add(kFieldState, kText, state_of(source, facts));
    add_times();
    add_text(kFieldSubject, Role::kSubject);
    add_text(kFieldTenant, Role::kTenant);
    add_value(kFieldScopes, Role::kScopes, kScopesBytesMax, kStoredBytesMax);
    add_value(kFieldMetadata, Role::kMetadata, kTextBytesMax, kMetadataStoredBytesMax);
    add_notes();
  }
  [[nodiscard]] std::vector<Selected> take() { return std::move(list_); }

 private:
  void add(RowField field, std::uint32_t type, std::string sql) {
    const bool as_stored = is_read_as_stored(facts_.encoding);
    if (as_stored && type == kJsonb) {
      sql = "(" + sql + ")::pg_catalog.text";
      type = kText;
    }
    if (as_stored && type == kText) {
      list_.push_back({{field, kBytea, true}, stored_bytes(sql, facts_)});
    } else {
      list_.push_back({{field, type}, std::move(sql)});
    }
  }

  void add_text(RowField field, Role role) {
    if (source_.column(role) == nullptr) return;
    const std::string column = qualified(*source_.column(role));
    if (const auto integer = integer_field(source_, facts_, field, role)) {
      list_.push_back({*integer, column});
      return;
    }
    const std::string text =
        role == Role::kId ? id_of(source_, facts_) : text_of(source_, facts_, role);
    add(field, kText, limited(text, column, type_of(source_, facts_, role), kTextBytesMax));
  }

  void add_key() {
    const bool digest = source_.scheme == Scheme::kSha256 || source_.scheme == Scheme::kHmac;
    const bool text_encoded = digest && source_.encoding != Encoding::kRaw;
    add(kFieldKey, text_encoded ? kText : kBytea, key_of(source_, facts_));
    if (source_.column(Role::kKeyVersion) == nullptr) return;
    add(kFieldKeyVersion, kText,
        limited_text_of(source_, facts_, Role::kKeyVersion, kKeyVersionBytesMax));
  }

  void add_times() {
    for (const auto& [field, role] : {std::pair(kFieldExpires, Role::kExpiresAt),
                                      std::pair(kFieldNotBefore, Role::kNotBefore)}) {
      if (source_.column(role) != nullptr) add(field, kTimestamptz, time_of(source_, facts_, role));
    }
  }

  // Scopes or metadata.
  void add_value(RowField field, Role role, int bytes, int stored_max) {
    const std::string* name = source_.column(role);
    if (name == nullptr) return;
    const std::string column = qualified(*name);
    const std::string& type = type_of(source_, facts_, role);
    if (type == "jsonb") {
      add(field, kJsonb, limited_jsonb(column, bytes, stored_max));
    } else if (role == Role::kScopes && type.ends_with("[]")) {
      add(field, kText, limited(array_as_json(source_, facts_), column, type, bytes, stored_max));
    } else if (role == Role::kMetadata && is_text_type(type)) {
      // A text that is too long is dropped: triggers do not report its changes.
      add(field, kText,
          "CASE WHEN " + longer_than(column, bytes) + " THEN " + too_long(bytes) + " ELSE " +
              text_of(source_, facts_, role) + " END");
    } else {
      add(field, kText, limited_text_of(source_, facts_, role, bytes, stored_max));
    }
  }

  // Fields that depend on the scheme, and on the type of last_used_at.
  void add_notes() {
    const std::string key = text_of(source_, facts_, Role::kKey);
    if (source_.scheme == Scheme::kJwt) {
      add(kFieldJwtClaims, kText,
          "CASE WHEN " + longer_than(key, LATCHKEY_KEY_BYTES_MAX) +
              " THEN '' ELSE pg_catalog.split_part(" + key + ", '.', 2) END");
    }
    if (source_.scheme == Scheme::kPlain) {
      add(kFieldShort, kText,
          "CASE WHEN pg_catalog.octet_length(" + key + in_catalog(") {<} ") +
              std::to_string(kShortKeyBytes) + " THEN 's' END");
    }
    if (!is_integer_type(type_of(source_, facts_, Role::kLastUsedAt))) return;
    const std::string used = qualified(*source_.column(Role::kLastUsedAt));
    add(kFieldUseTimeUnit, kText,
        "CASE WHEN " + used + in_catalog(" {<} '0'::pg_catalog.int8 OR ") + used +
            in_catalog(" {>} ") + epoch_seconds_max() + " THEN 'x' END");
  }

  const SourceConfig& source_;
  const TableFacts& facts_;
  std::vector<Selected> list_;
};

std::vector<Selected> selected(const SourceConfig& source, const TableFacts& facts) {
  return Selection(source, facts).take();
}

}  // namespace

// The id in the triggers' spelling. (It is NOT NULL.)
std::string id_of(const SourceConfig& source, const TableFacts& facts) {
  const std::string& type = type_of(source, facts, Role::kId);
  if (is_text_type(type) || type == "uuid" || is_integer_type(type)) {
    return text_of(source, facts, Role::kId);
  }
  return "pg_catalog.concat(" + qualified(*source.column(Role::kId)) + ")";
}

std::string id_field_of(const SourceConfig& source, const TableFacts& facts) {
  const std::string id = limited(id_of(source, facts), qualified(*source.column(Role::kId)),
                                 type_of(source, facts, Role::kId), kTextBytesMax);
  return is_read_as_stored(facts.encoding) ? stored_bytes(id, facts) : id;
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

// True if the row has a key, that is, if key_of() is not NULL.
std::string has_key(const SourceConfig& source, const TableFacts& facts) {
  const std::string there = qualified(*source.column(Role::kKey)) + " IS NOT NULL";
  const bool by_server =
      source.scheme == Scheme::kPlain || source.scheme == Scheme::kJwt ||
      (source.scheme == Scheme::kJwtJti && type_of(source, facts, Role::kKey) != "uuid");
  return by_server ? there + " AND " + longer_than(text_of(source, facts, Role::kKey), 0) : there;
}

std::vector<WireField> wire_fields(const SourceConfig& source, const TableFacts& facts) {
  std::vector<WireField> fields;
  for (const Selected& one : selected(source, facts)) fields.push_back(one.wire);
  return fields;
}

}  // namespace latchkey
