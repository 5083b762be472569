#include "loader/postgres/strangers.h"

#include "loader/postgres/catalogue_sql.h"
#include "loader/postgres/sql_text.h"

namespace latchkey::catalogue {
namespace {

// One function is enough for a refusal; the others inform the operator. A signature may take
// kilobytes.
constexpr int kStrangersMax = 10;
constexpr int kNameCharacters = 200;

std::string catalogue_oid(std::string_view name) {
  return "'pg_catalog." + std::string(name) + "'::pg_catalog.regclass::pg_catalog.oid";
}

// (catalogue, object) of the objects with an expression, for each part of the table: `oid` of rows
// o of catalogue `from` that satisfy `condition`. As in pg_depend, an index belongs to pg_class.
std::string expressions(std::string_view catalogue, std::string_view oid, std::string_view from,
                        std::string_view condition) {
  return " UNION ALL SELECT " + catalogue_oid(catalogue) + ", o.oid FROM part" +
         each("SELECT o." + std::string(oid) + " AS oid FROM pg_catalog." + std::string(from) +
                  " o WHERE " + std::string(condition),
              "o");
}

// (catalogue, object) of the objects with an expression that PostgreSQL evaluates on a read of the
// table, or may simplify while it plans: simplification calls IMMUTABLE functions.
std::string expressions_read() {
  return "SELECT " + catalogue_oid("pg_class") + " AS classid, part.oid AS oid FROM part" +
         expressions("pg_class", "indexrelid", "pg_index",
                     "o.indrelid {=} part.oid"
                     " AND (o.indexprs IS NOT NULL OR o.indpred IS NOT NULL)") +
         expressions("pg_constraint", "oid", "pg_constraint",
                     "o.conrelid {=} part.oid AND o.contype {=} 'c'") +
         expressions("pg_policy", "oid", "pg_policy", "o.polrelid {=} part.oid") +
         expressions("pg_statistic_ext", "oid", "pg_statistic_ext", "o.stxrelid {=} part.oid");
}

// The additional objects that an UPDATE runs: triggers, generated columns, rules.
std::string expressions_written() {
  return expressions("pg_trigger", "oid", "pg_trigger",
                     "w.writes AND o.tgrelid {=} part.oid AND NOT o.tgisinternal") +
         expressions("pg_attrdef", "oid", "pg_attrdef", "w.writes AND o.adrelid {=} part.oid") +
         expressions("pg_rewrite", "oid", "pg_rewrite", "w.writes AND o.ev_class {=} part.oid");
}

// (Objects with a lower OID are PostgreSQL's own and need no check.)
std::string of_users(std::string_view oid) {
  return std::string(oid) + in_catalog(" {>=} ") + kFirstUserOid;
}

// A condition: see strangers().
std::string is_stranger(const std::string& role, const std::vector<const SourceConfig*>& read) {
  std::vector<std::string> tables;
  for (const SourceConfig* source : read) {
    tables.push_back("(" + quote_literal(source->table.schema) + ", " +
                     quote_literal(source->table.table) + ")");
  }
  return in_catalog("(NOT (SELECT s.rolsuper FROM pg_catalog.pg_roles s WHERE s.oid {=} ") + role +
         ") AND (" + this_role("r.rolsuper") + " OR EXISTS (SELECT FROM (VALUES " +
         joined(tables, ", ") + ") AS t(nspname, relname)" +
         each("SELECT m.oid FROM pg_catalog.pg_namespace m WHERE m.nspname {=} t.nspname", "m") +
         each(
             "SELECT o.relowner FROM pg_catalog.pg_class o WHERE o.relname {=} t.relname"
             " AND o.relnamespace {=} m.oid",
             "o") +
         " WHERE NOT pg_catalog.pg_has_role(" + role + ", o.relowner, 'MEMBER'))))";
}

// The objects that the expressions refer to, and the types of columns: planning a query may compare
// statistics of any column, mapped or not.
std::string named() {
  return "named(classid, oid) AS (SELECT d.classid, d.oid FROM used" +
         each(
             "SELECT d.refclassid AS classid, d.refobjid AS oid FROM pg_catalog.pg_depend d"
             " WHERE d.classid {=} used.classid AND d.objid {=} used.oid",
             "d") +
         " WHERE " + of_users("d.oid") + " UNION SELECT " + catalogue_oid("pg_type") +
         ", a.oid FROM part" +
         each(
             "SELECT a.atttypid AS oid FROM pg_catalog.pg_attribute a"
             " WHERE a.attrelid {=} part.oid AND a.attnum {>} 0",
             "a") +
         " WHERE " + of_users("a.oid") + ")";
}

// The objects that the check of a domain refers to.
std::string named_by_check(std::string_view oid, std::string_view condition) {
  return "SELECT d.refclassid AS classid, d.refobjid AS oid FROM pg_catalog.pg_constraint k"
         " JOIN pg_catalog.pg_depend d ON d.objid {=} k.oid WHERE k.contypid {=} " +
         std::string(oid) + " AND d.classid {=} " + catalogue_oid("pg_constraint") +
         std::string(condition);
}

// The types of named(), their component types, and the types that checks of domains refer to. A
// multirange depends on its range.
std::string kinds() {
  const std::string type = catalogue_oid("pg_type");
  return "kind(oid) AS (SELECT named.oid FROM named WHERE" + in_catalog(" named.classid {=} ") +
         type + " UNION SELECT m.oid FROM kind" +
         each(
             "SELECT y.typelem AS oid FROM pg_catalog.pg_type y WHERE y.oid {=} kind.oid"
             " UNION ALL SELECT y.typbasetype FROM pg_catalog.pg_type y WHERE y.oid {=} kind.oid"
             " UNION ALL SELECT g.rngsubtype FROM pg_catalog.pg_range g"
             " WHERE g.rngtypid {=} kind.oid"
             " UNION ALL SELECT ya.atttypid FROM pg_catalog.pg_type y"
             " JOIN pg_catalog.pg_attribute ya ON ya.attrelid {=} y.typrelid"
             " WHERE y.oid {=} kind.oid AND y.typrelid {<>} 0 AND ya.attnum {>} 0"
             " UNION ALL SELECT d.refobjid FROM pg_catalog.pg_type y"
             " JOIN pg_catalog.pg_depend d ON d.objid {=} y.oid"
             " WHERE y.oid {=} kind.oid AND y.typtype {=} 'm' AND d.classid {=} " +
                 type + " AND d.refclassid {=} " + type + " UNION ALL SELECT x.oid FROM (" +
                 named_by_check("kind.oid", " AND d.refclassid {=} " + type) + ") x",
             "m") +
         " WHERE " + of_users("m.oid") + ")";
}

std::string function(std::string_view oid) {
  return each("SELECT f.oid, f.proowner AS owner FROM pg_catalog.pg_proc f WHERE f.oid {=} " +
                  std::string(oid),
              "f");
}

// The objects that the expressions refer to, and those in the checks of their domains.
std::string behind() {
  return "behind(classid, oid) AS (SELECT named.classid, named.oid FROM named UNION SELECT"
         " d.classid, d.oid FROM kind" +
         each(named_by_check("kind.oid", ""), "d") + " WHERE " + of_users("d.oid") + ")";
}

// The functions of behind(), the functions of operators (with the operators' owners), those that
// make and compare ranges, and (for an UPDATE) casts: functions that take any type look for a cast
// (to_json()).
std::string code() {
  return "code(oid, owner) AS (SELECT f.oid, f.owner FROM behind" + function("behind.oid") +
         in_catalog(" WHERE behind.classid {=} ") + catalogue_oid("pg_proc") +
         " UNION SELECT f.oid, w.owner FROM behind" +
         each(
             "SELECT p.oprcode::pg_catalog.oid AS code, p.oprowner AS owner"
             " FROM pg_catalog.pg_operator p WHERE p.oid {=} behind.oid",
             "p") +
         function("p.code") + " CROSS JOIN LATERAL (VALUES (f.owner), (p.owner)) AS w(owner)" +
         in_catalog(" WHERE behind.classid {=} ") + catalogue_oid("pg_operator") +
         " UNION SELECT f.oid, f.owner FROM kind" +
         each(
             "SELECT g.rngsubdiff::pg_catalog.oid AS oid FROM pg_catalog.pg_range g"
             " WHERE g.rngtypid {=} kind.oid UNION ALL SELECT g.rngcanonical::pg_catalog.oid"
             " FROM pg_catalog.pg_range g WHERE g.rngtypid {=} kind.oid"
             " UNION ALL SELECT c.castfunc FROM pg_catalog.pg_cast c"
             " WHERE w.writes AND c.castsource {=} kind.oid",
             "w") +
         function("w.oid") + ")";
}

}  // namespace

std::string strangers(const std::vector<const SourceConfig*>& read) {
  const std::string functions =
      "SELECT pg_catalog.concat(code.oid::pg_catalog.regprocedure, ' of role ',"
      " pg_catalog.pg_get_userbyid(code.owner)) AS what FROM code WHERE " +
      of_users("code.oid") + " AND " + is_stranger("code.owner", read);
  // An UPDATE runs too much code to list: triggers, rules, cascades to other tables, checks that
  // hold SQL as text. So nothing is written to a stranger's table.
  const std::string updates =
      "SELECT pg_catalog.concat('whatever an UPDATE of ', q.oid::pg_catalog.regclass,"
      " ' runs for role ', pg_catalog.pg_get_userbyid(q.owner)) FROM part" +
      each("SELECT q.oid, q.relowner AS owner FROM pg_catalog.pg_class q WHERE q.oid {=} part.oid",
           "q") +
      " WHERE w.writes AND " + is_stranger("q.owner", read);
  return " CROSS JOIN LATERAL (WITH RECURSIVE " + parts() + ", used AS (" + expressions_read() +
         expressions_written() + "), " + named() + ", " + kinds() + ", " + behind() + ", " +
         code() +
         " SELECT coalesce(pg_catalog.json_agg(y.what), '[]') AS functions FROM (SELECT DISTINCT"
         " pg_catalog.left(x.what, " +
         std::to_string(kNameCharacters) + ") AS what FROM (" + functions + " UNION ALL " +
         updates + ") x ORDER BY 1 LIMIT " + std::to_string(kStrangersMax) + ") y) s";
}

}  // namespace latchkey::catalogue
