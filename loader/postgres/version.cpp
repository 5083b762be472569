#include "loader/postgres/version.h"

#include <nlohmann/json.hpp>

#include "loader/postgres/catalogue.h"
#include "loader/postgres/catalogue_sql.h"
#include "loader/postgres/sql_text.h"
#include "loader/postgres/strangers.h"

namespace latchkey {
namespace {

using namespace catalogue;

// Lists the expressions `what` for each row of `from`, ordered by `by`.
std::string listed(std::string_view what, std::string_view by, std::string_view from) {
  return "(SELECT pg_catalog.string_agg(pg_catalog.concat_ws(':', " + std::string(what) +
         "), ' ' ORDER BY " + std::string(by) + ") FROM " + in_catalog(from);
}

std::string triggers() {
  return listed("t.oid, t.xmin, t.tgenabled, p.oid, p.xmin", "t.oid",
                "pg_catalog.pg_trigger t JOIN pg_catalog.pg_proc p ON p.oid {=} t.tgfoid"
                " WHERE t.tgrelid {=} c.oid AND ") +
         are_ours("t.tgname") + ")";
}

std::string columns() {
  return listed(
      "a.attnum, a.xmin, pg_catalog.has_column_privilege(c.oid, a.attnum, 'SELECT'), f.xmin",
      "a.attnum",
      "pg_catalog.pg_attribute a LEFT JOIN pg_catalog.pg_attrdef f"
      " ON f.adrelid {=} a.attrelid AND f.adnum {=} a.attnum AND a.attgenerated {<>} ''"
      " WHERE a.attrelid {=} c.oid AND a.attname {=} ANY (w.mapped))");
}

// User-defined types, resolved to their components: elements of arrays, bases of domains.
std::string types() {
  const std::string of_users = in_catalog(" {>=} ") + kFirstUserOid;
  return "(WITH RECURSIVE kind(oid) AS (SELECT a.atttypid FROM pg_catalog.pg_attribute a" +
         in_catalog(
             " WHERE a.attrelid {=} c.oid AND a.attname {=} ANY (w.mapped)"
             " AND a.atttypid") +
         of_users + " UNION SELECT m.oid FROM kind" +
         each("SELECT y.typelem, y.typbasetype FROM pg_catalog.pg_type y WHERE y.oid {=} kind.oid",
              "y") +
         " CROSS JOIN LATERAL (VALUES (y.typelem), (y.typbasetype)) AS m(oid) WHERE m.oid" +
         of_users +
         ") SELECT pg_catalog.string_agg(pg_catalog.concat_ws(':', l.oid, l.version), ' '"
         " ORDER BY l.oid) FROM kind" +
         each(
             "SELECT y.oid, y.xmin AS version FROM pg_catalog.pg_type y WHERE y.oid {=} kind.oid"
             " UNION ALL SELECT e.oid, e.xmin FROM pg_catalog.pg_enum e"
             " WHERE e.enumtypid {=} kind.oid",
             "l") +
         ")";
}

std::string policies() {
  return listed("y.oid, y.xmin", "y.oid", "pg_catalog.pg_policy y WHERE y.polrelid {=} c.oid)");
}

std::string rules() {
  return listed("w.oid, w.xmin", "w.oid", "pg_catalog.pg_rewrite w WHERE w.ev_class {=} c.oid)");
}

std::string parents() {
  return listed("i.inhparent, i.xmin", "i.inhparent",
                "pg_catalog.pg_inherits i WHERE i.inhrelid {=} c.oid)");
}

// The columns that identify one row each. (Not the indexes: REINDEX CONCURRENTLY replaces them.)
std::string unique() {
  return in_catalog(
      "(SELECT pg_catalog.string_agg(DISTINCT i.indkey[0]::pg_catalog.text, ' ')"
      " FROM pg_catalog.pg_index i WHERE i.indrelid {=} c.oid AND i.indisunique AND i.indisvalid"
      " AND i.indnkeyatts {=} 1 AND i.indpred IS NULL)");
}

// A digest, because there may be thousands of parts. The statement's snapshot applies to pg_class
// (unlike pg_relation_filenode(), which asks a cache): so a TRUNCATE is visible in it if and only
// if it is visible to that statement, and to later ones on any connection. A part that was detached
// and attached again has a new row in pg_inherits.
std::string files() {
  return "(WITH RECURSIVE " + parts() +
         in_catalog(
             " SELECT pg_catalog.encode(pg_catalog.sha256(pg_catalog.convert_to("
             "pg_catalog.string_agg(pg_catalog.concat_ws(':', q.oid, q.relowner,"
             " q.relfilenode, q.since), ' ' ORDER BY q.oid), 'UTF8')), 'hex') FROM part") +
         each(
             "SELECT q.oid, q.relowner, q.relfilenode, (SELECT pg_catalog.string_agg("
             "i.xmin::pg_catalog.text, ' ' ORDER BY i.inhparent) FROM pg_catalog.pg_inherits i"
             " WHERE i.inhrelid {=} q.oid) AS since FROM pg_catalog.pg_class q"
             " WHERE q.oid {=} part.oid",
             "q") +
         ")";
}

}  // namespace

// The version contains row versions (xmin): a trigger or function that was changed and changed back
// differs, because changes in between may have gone unnoticed. (xmin survives freezing; statistics
// are written in place.)
std::string version_sql() {
  return "pg_catalog.concat_ws(' ', c.oid, c.xmin, n.xmin, c.relkind,"
         " pg_catalog.has_schema_privilege(n.oid, 'USAGE'),"
         " pg_catalog.row_security_active(c.oid), " +
         policies_allow('r') + ", CASE WHEN w.writes THEN " + policies_allow('w') + " END, " +
         this_role("pg_catalog.concat(r.rolsuper, r.rolbypassrls)") +
         in_catalog(
             ", (SELECT pg_catalog.concat_ws(':', l.oid, l.nspowner)"
             " FROM pg_catalog.pg_namespace l WHERE l.nspname {=} 'latchkey'), ") +
         triggers() + ", " + columns() + ", " + types() + ", " + policies() + ", " + rules() +
         ", " + parents() + ", " + unique() + ", " + files() + ", " +
         // A digest: names may hold characters that cannot pass the connection.
         "pg_catalog.encode(pg_catalog.sha256(pg_catalog.convert_to(s.functions::pg_catalog.text,"
         " pg_catalog.getdatabaseencoding())), 'hex'))";
}

std::string heartbeat_settings() {
  return plan_by_index("SET") + "SET plan_cache_mode = force_generic_plan;";
}

std::string versions_sql(const std::vector<const SourceConfig*>& sources) {
  return "(SELECT pg_catalog.json_agg(v.version ORDER BY w.number)::pg_catalog.text FROM " +
         wanted(sources) + " LEFT JOIN LATERAL (SELECT " + version_sql() + " AS version FROM" +
         found(strangers(sources)) + ") v ON true)";
}

std::vector<std::string> versions_from_json(std::string_view text, std::size_t tables) {
  using nlohmann::json;
  std::vector<std::string> versions;
  try {
    const json list = json::parse(text);
    if (!list.is_array() || list.size() != tables) {
      throw CatalogueError("is not of as many tables as were asked for");
    }
    for (const json& version : list) {
      versions.push_back(version.is_null() ? "" : version.get<std::string>());
    }
  } catch (const json::exception&) {  // its text would quote the answer
    throw CatalogueError("is not the JSON it should be");
  }
  return versions;
}

}  // namespace latchkey
