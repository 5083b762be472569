#include "loader/postgres/trigger_function.h"

#include <algorithm>
#include <string_view>
#include <utility>
#include <vector>

#include "loader/postgres/change_notice.h"
#include "loader/postgres/row_fields.h"
#include "loader/postgres/sql_text.h"

namespace latchkey {
namespace {

// Bytes of ids in one payload. PostgreSQL's limit is 8000 bytes (NOTIFY); the rest is for the
// table's name and for the id that crosses kIdsBytesMax.
constexpr int kIdsBytesMax = 6000;
// Ids per statement. Above it the daemon would read the whole table, too
// (RefreshSettings::pending_ids_max).
constexpr int kIdsMax = 100'000;

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

// Notifies that the whole table is to be read or looked at.
std::string whole(const std::string& tag, const std::string& why) {
  return notify("pg_catalog.json_build_object('t', " + tag + ", '" + why +
                "', true)::pg_catalog.text");
}

// Sends the ids in `changed`, in payloads that fit.
std::string send_ids(const std::string& tag) {
  return "    IF changed IS NULL THEN\n"
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
         whole(tag, "reload") +
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
         notify("payload") + "    END LOOP;\n";
}

}  // namespace

std::string function_body(const SourceConfig& source) {
  const std::string tag = quote_literal(source.table.display());
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
         whole(tag, "all") + "    END IF;\n" + send_ids(tag) +
         "  EXCEPTION WHEN OTHERS THEN\n"
         "    -- A mapped column may be gone, or there may be no memory to compare rows. The "
         "statement\n"
         "    -- that changed the table must not fail for that: say that something changed.\n"
         "    " +
         whole(tag, "reload") +
         "  END;\n"
         "  RETURN NULL;\n"
         "END\n";
}

}  // namespace latchkey
