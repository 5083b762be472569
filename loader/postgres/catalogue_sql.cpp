#include "loader/postgres/catalogue_sql.h"

#include "loader/postgres/sql_text.h"
#include "loader/postgres/triggers.h"

namespace latchkey::catalogue {
namespace {

std::string names(const std::vector<std::string>& texts) {
  return "ARRAY[" + quoted_list(texts) + "]::pg_catalog.name[]";
}

}  // namespace

std::string plan_by_index(std::string_view set) {
  std::string sql;
  for (const char* method : {"enable_seqscan", "enable_hashjoin", "enable_mergejoin"}) {
    sql.append(set).append(" ").append(method).append(" = off;");
  }
  return sql;
}

std::string wanted(const std::vector<const SourceConfig*>& sources) {
  std::vector<std::string> rows;
  for (const SourceConfig* source : sources) {
    const bool writes = source->column(Role::kLastUsedAt) != nullptr;
    rows.push_back("(" + std::to_string(rows.size()) + ", " + quote_literal(source->table.schema) +
                   "::pg_catalog.name, " + quote_literal(source->table.table) +
                   "::pg_catalog.name, " + mapped(*source) + ", " + (writes ? "true" : "false") +
                   ")");
  }
  return "(VALUES " + joined(rows, ", ") + ") AS w(number, nspname, relname, mapped, writes)";
}

std::string found(const std::string& joins) {
  return in_catalog(
             " pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid {=} c.relnamespace") +
         joins + in_catalog(" WHERE n.nspname {=} w.nspname AND c.relname {=} w.relname");
}

std::string each(std::string_view query, std::string_view alias) {
  return " CROSS JOIN LATERAL (" + in_catalog(query) + " OFFSET 0) " + std::string(alias);
}

std::string parts() {
  return "part(oid) AS (SELECT c.oid UNION SELECT i.inhrelid FROM part" +
         each("SELECT i.inhrelid FROM pg_catalog.pg_inherits i WHERE i.inhparent {=} part.oid",
              "i") +
         ")";
}

std::string this_role(const std::string& expression) {
  return "(SELECT " + expression +
         in_catalog(" FROM pg_catalog.pg_roles r WHERE r.rolname {=} current_user)");
}

std::string policies_allow(char command) {
  const std::string applies = in_catalog(
                                  " FROM pg_catalog.pg_policy y WHERE y.polrelid {=} c.oid"
                                  " AND y.polcmd {=} ANY (ARRAY['*', '") +
                              command +
                              in_catalog(
                                  "']::pg_catalog.\"char\"[])"
                                  " AND EXISTS (SELECT FROM pg_catalog.unnest(y.polroles) AS p(oid)"
                                  " WHERE CASE WHEN p.oid {=} 0 THEN true"
                                  " ELSE pg_catalog.pg_has_role(p.oid, 'USAGE') END)");
  const auto is_true = [](const std::string& expression) {
    return "pg_catalog.pg_get_expr(" + expression + in_catalog(", y.polrelid) {=} 'true'");
  };
  return "(EXISTS (SELECT" + applies + " AND y.polpermissive AND " + is_true("y.polqual") +
         " AND (y.polwithcheck IS NULL OR " + is_true("y.polwithcheck") +
         ")) AND NOT EXISTS (SELECT" + applies + " AND NOT y.polpermissive))";
}

std::string are_ours(const std::string& name) {
  return name + in_catalog(" {=} ANY (") + names(trigger_names()) + ")";
}

std::string mapped(const SourceConfig& source) {
  std::vector<std::string> columns;
  for (const auto& [unused, column] : source.columns) columns.push_back(column);
  return names(columns);
}

std::string layout(const std::string& oid, const std::string& mapped) {
  return "(SELECT pg_catalog.concat(" + oid +
         ", ' ', pg_catalog.string_agg(pg_catalog.concat_ws(':', a.attname, a.attnum, a.atttypid),"
         " ' ' ORDER BY a.attnum)) FROM pg_catalog.pg_attribute a" +
         in_catalog(" WHERE a.attrelid {=} ") + oid + in_catalog(" AND a.attname {=} ANY (") +
         mapped + "))";
}

}  // namespace latchkey::catalogue
