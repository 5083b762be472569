#include "loader/catalogue.h"

#include <nlohmann/json.hpp>

#include "loader/sql_text.h"

namespace latchkey {
namespace {

using nlohmann::json;

// The first object identifier that is not PostgreSQL's own (access/transam.h, FirstNormalObjectId).
constexpr const char* kFirstUserOid = "16384";

std::string table_is(const TableName& table, const std::string& relation,
                     const std::string& schema) {
  return schema + in_catalog(".nspname {=} ") + quote_literal(table.schema) + " AND " + relation +
         in_catalog(".relname {=} ") + quote_literal(table.table);
}

std::string from_table(const TableName& table) {
  return in_catalog(
             " FROM pg_catalog.pg_class c"
             " JOIN pg_catalog.pg_namespace n ON n.oid {=} c.relnamespace WHERE ") +
         table_is(table, "c", "n");
}

// Common table expression: the table c and all that inherits from it, partitions included.
std::string parts() {
  return in_catalog(
      "part(oid) AS (SELECT c.oid UNION"
      " SELECT i.inhrelid FROM part JOIN pg_catalog.pg_inherits i ON i.inhparent {=} part.oid)");
}

// (catalogue, object) of whatever holds an expression that PostgreSQL evaluates, or may simplify
// while it plans, when somebody reads the table: to simplify is to call what is marked IMMUTABLE.
std::string expressions_read() {
  return in_catalog(
      "SELECT 'pg_catalog.pg_class'::pg_catalog.regclass::pg_catalog.oid AS classid, part.oid AS "
      "oid"
      " FROM part"
      " UNION ALL SELECT 'pg_catalog.pg_class'::pg_catalog.regclass::pg_catalog.oid, x.indexrelid"
      " FROM part JOIN pg_catalog.pg_index x ON x.indrelid {=} part.oid"
      " WHERE x.indexprs IS NOT NULL OR x.indpred IS NOT NULL"
      " UNION ALL SELECT 'pg_catalog.pg_constraint'::pg_catalog.regclass::pg_catalog.oid, k.oid"
      " FROM part JOIN pg_catalog.pg_constraint k ON k.conrelid {=} part.oid WHERE k.contype {=} "
      "'c'"
      " UNION ALL SELECT 'pg_catalog.pg_policy'::pg_catalog.regclass::pg_catalog.oid, y.oid"
      " FROM part JOIN pg_catalog.pg_policy y ON y.polrelid {=} part.oid"
      " UNION ALL SELECT 'pg_catalog.pg_statistic_ext'::pg_catalog.regclass::pg_catalog.oid, s.oid"
      " FROM part JOIN pg_catalog.pg_statistic_ext s ON s.stxrelid {=} part.oid");
}

// And what an UPDATE runs besides: triggers, generated columns.
std::string expressions_written() {
  return in_catalog(
      " UNION ALL SELECT 'pg_catalog.pg_trigger'::pg_catalog.regclass::pg_catalog.oid, g.oid"
      " FROM part JOIN pg_catalog.pg_trigger g ON g.tgrelid {=} part.oid WHERE NOT g.tgisinternal"
      " UNION ALL SELECT 'pg_catalog.pg_attrdef'::pg_catalog.regclass::pg_catalog.oid, f.oid"
      " FROM part JOIN pg_catalog.pg_attrdef f ON f.adrelid {=} part.oid");
}

std::string this_role(const std::string& expression) {
  return "(SELECT " + expression +
         in_catalog(" FROM pg_catalog.pg_roles r WHERE r.rolname {=} current_user)");
}

// A condition: this role could not act as the owner of each table that our role reads. Its code,
// run as our role, could read those. To a superuser, all but superusers are strangers.
std::string is_stranger(const std::string& role, const std::vector<TableName>& read) {
  std::vector<std::string> tables;
  for (const TableName& table : read) tables.push_back("(" + table_is(table, "o", "m") + ")");
  if (tables.empty()) tables.emplace_back("false");
  return in_catalog("(NOT (SELECT s.rolsuper FROM pg_catalog.pg_roles s WHERE s.oid {=} ") + role +
         ") AND (" + this_role("r.rolsuper") +
         in_catalog(
             " OR EXISTS (SELECT FROM pg_catalog.pg_class o"
             " JOIN pg_catalog.pg_namespace m ON m.oid {=} o.relnamespace WHERE (") +
         joined(tables, " OR ") + ") AND NOT pg_catalog.pg_has_role(" + role +
         ", o.relowner, 'MEMBER'))))";
}

// JSON array of functions that strangers own. (PostgreSQL's own objects are no one's: what has a
// lower identifier needs no look.)
std::string foreign_code(const SourceConfig& source, const std::vector<TableName>& read) {
  const bool writes = source.column(Role::kLastUsedAt) != nullptr;
  const auto of_users = [](const std::string& oid) {
    return oid + in_catalog(" {>=} ") + kFirstUserOid;
  };
  return "(WITH RECURSIVE " + parts() + ", used AS (" + expressions_read() +
         (writes ? expressions_written() : "") +
         in_catalog(
             "), named(classid, oid) AS (SELECT d.refclassid, d.refobjid FROM used u"
             " JOIN pg_catalog.pg_depend d ON d.classid {=} u.classid AND d.objid {=} u.oid "
             "WHERE ") +
         of_users("d.refobjid") +
         // Statistics of any column, mapped or not, may be compared while a query is planned.
         in_catalog(
             " UNION SELECT 'pg_catalog.pg_type'::pg_catalog.regclass::pg_catalog.oid, a.atttypid"
             " FROM part JOIN pg_catalog.pg_attribute a ON a.attrelid {=} part.oid"
             " WHERE a.attnum {>} 0 AND ") +
         of_users("a.atttypid") +
         // The types named, with those that they are made of. A multirange depends on its range.
         in_catalog(
             "), kind(oid) AS (SELECT named.oid FROM named"
             " WHERE named.classid {=} 'pg_catalog.pg_type'::pg_catalog.regclass::pg_catalog.oid"
             " UNION SELECT m.oid FROM kind JOIN pg_catalog.pg_type y ON y.oid {=} kind.oid"
             " LEFT JOIN pg_catalog.pg_range g ON y.oid {=} g.rngtypid"
             " LEFT JOIN pg_catalog.pg_attribute ya ON ya.attrelid {=} y.typrelid"
             " AND y.typrelid {<>} 0 AND ya.attnum {>} 0"
             " LEFT JOIN pg_catalog.pg_depend yd ON y.typtype {=} 'm' AND yd.objid {=} y.oid"
             " AND yd.classid {=} 'pg_catalog.pg_type'::pg_catalog.regclass::pg_catalog.oid"
             " AND yd.refclassid {=} 'pg_catalog.pg_type'::pg_catalog.regclass::pg_catalog.oid"
             " CROSS JOIN LATERAL (VALUES (y.typelem), (y.typbasetype), (g.rngsubtype),"
             " (ya.atttypid), (yd.refobjid)) AS m(oid) WHERE ") +
         of_users("m.oid") +
         in_catalog(
             "), code AS (SELECT f.oid, f.proowner AS owner"
             " FROM named JOIN pg_catalog.pg_proc f ON f.oid {=} named.oid"
             " WHERE named.classid {=} 'pg_catalog.pg_proc'::pg_catalog.regclass::pg_catalog.oid"
             " UNION SELECT f.oid, w.owner"
             " FROM named JOIN pg_catalog.pg_operator p ON p.oid {=} named.oid"
             " JOIN pg_catalog.pg_proc f ON f.oid {=} p.oprcode::pg_catalog.oid"
             " CROSS JOIN LATERAL (VALUES (f.proowner), (p.oprowner)) AS w(owner)"
             " WHERE named.classid {=} 'pg_catalog.pg_operator'::pg_catalog.regclass"
             "::pg_catalog.oid"
             " UNION SELECT f.oid, f.proowner FROM kind"
             " JOIN pg_catalog.pg_range g ON g.rngtypid {=} kind.oid"
             " CROSS JOIN LATERAL (VALUES (g.rngsubdiff::pg_catalog.oid),"
             " (g.rngcanonical::pg_catalog.oid)) AS w(oid)"
             " JOIN pg_catalog.pg_proc f ON f.oid {=} w.oid"
             " UNION SELECT f.oid, f.proowner FROM kind"
             " JOIN pg_catalog.pg_constraint k ON k.contypid {=} kind.oid"
             " JOIN pg_catalog.pg_depend d ON d.objid {=} k.oid"
             " AND d.classid {=} 'pg_catalog.pg_constraint'::pg_catalog.regclass::pg_catalog.oid"
             " AND d.refclassid {=} 'pg_catalog.pg_proc'::pg_catalog.regclass::pg_catalog.oid"
             " JOIN pg_catalog.pg_proc f ON f.oid {=} d.refobjid)"
             " SELECT coalesce(pg_catalog.json_agg(DISTINCT w.what), '[]') FROM ("
             "SELECT pg_catalog.concat(code.oid::pg_catalog.regprocedure, ' of role ',"
             " pg_catalog.pg_get_userbyid(code.owner)) AS what FROM code WHERE ") +
         of_users("code.oid") + " AND " + is_stranger("code.owner", read) +
         // An UPDATE runs too much to tell: triggers, rules, cascades to other tables, checks that
         // hold SQL as text. So nothing is written to a stranger's table.
         (writes ? in_catalog(" UNION ALL SELECT pg_catalog.concat('whatever an UPDATE of ',"
                              " q.oid::pg_catalog.regclass, ' runs for role ',"
                              " pg_catalog.pg_get_userbyid(q.relowner))"
                              " FROM part JOIN pg_catalog.pg_class q ON q.oid {=} part.oid"
                              " WHERE ") +
                       is_stranger("q.relowner", read)
                 : "") +
         ") w)";
}

// A condition: some policy shows this role every row for `command` (pg_policy.polcmd), and no
// restrictive one takes rows away or runs code of its own.
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

// A scalar subquery: the type beneath a domain, and beneath that.
std::string base_type(const std::string& type) {
  return "(WITH RECURSIVE base(oid, typtype, typbasetype) AS (SELECT d.oid, d.typtype,"
         " d.typbasetype FROM pg_catalog.pg_type d" +
         in_catalog(" WHERE d.oid {=} ") + type +
         in_catalog(
             " UNION ALL SELECT d.oid, d.typtype, d.typbasetype"
             " FROM base JOIN pg_catalog.pg_type d ON d.oid {=} base.typbasetype"
             " WHERE base.typtype {=} 'd')"
             " SELECT base.oid FROM base WHERE base.typtype {<>} 'd')");
}

// JSON: name -> {type, output}, see Output. b is the column's type, e that of its elements.
std::string columns() {
  return "(SELECT pg_catalog.json_object_agg(a.attname, pg_catalog.json_build_object("
         "'type', CASE WHEN e.oid IS NULL THEN pg_catalog.format_type(b.oid, NULL)"
         " ELSE pg_catalog.concat(pg_catalog.format_type(e.oid, NULL), '[]') END,"
         "'output', CASE WHEN " +
         in_catalog("coalesce(e.oid, b.oid) {<} ") + kFirstUserOid +
         in_catalog(
             " THEN 'b' WHEN coalesce(e.typtype, b.typtype) {=} 'e' THEN 'e'"
             " WHEN coalesce(e.typtype, b.typtype) {=} 'b' AND (SELECT r.rolsuper"
             " FROM pg_catalog.pg_roles r WHERE r.oid {=} coalesce(e.typowner, b.typowner))"
             " THEN 'o' ELSE 'f' END))"
             " FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type b ON b.oid {=} ") +
         base_type("a.atttypid") +
         in_catalog(
             " LEFT JOIN pg_catalog.pg_type e ON b.typcategory {=} 'A' AND b.typlen {=} -1"
             " AND b.typelem {<>} 0 AND e.oid {=} ") +
         base_type("b.typelem") +
         in_catalog(" WHERE a.attrelid {=} c.oid AND a.attnum {>} 0 AND NOT a.attisdropped)");
}

// A JSON array of the names of the table's columns of which `condition` is true.
std::string columns_where(const std::string& condition) {
  return in_catalog(
             "(SELECT coalesce(pg_catalog.json_agg(a.attname), '[]')"
             " FROM pg_catalog.pg_attribute a"
             " WHERE a.attrelid {=} c.oid AND a.attnum {>} 0 AND NOT a.attisdropped AND ") +
         condition + ")";
}

std::string are_ours(const std::string& name) {
  return name + in_catalog(" {=} ANY (ARRAY[") + quoted_list(trigger_names()) +
         "]::pg_catalog.name[])";
}

// Mapped columns, by name.
std::string is_mapped(const SourceConfig& source) {
  std::vector<std::string> names;
  for (const auto& [unused, column] : source.columns) names.push_back(column);
  return in_catalog("a.attname {=} ANY (ARRAY[") + quoted_list(names) + "]::pg_catalog.name[])";
}

// Rows are versions: a trigger or function that was changed and changed back is another one, and
// what happened in between may have gone unnoticed. (xmin survives freezing; statistics are written
// in place.)
//
// Of parts, of which there may be thousands, a digest. pg_class is read by the statement's snapshot
// (unlike pg_relation_filenode(), which asks a cache): so a TRUNCATE is visible in it if and only
// if it is visible to that statement, and to those that come later on any connection.
std::string version_of(const SourceConfig& source, const std::vector<TableName>& read) {
  const bool writes = source.column(Role::kLastUsedAt) != nullptr;
  return "SELECT pg_catalog.concat_ws(' ', c.oid, c.xmin, c.relkind,"
         " pg_catalog.row_security_active(c.oid), " +
         policies_allow('r') + ", " + (writes ? policies_allow('w') + ", " : "") +
         this_role("pg_catalog.concat(r.rolsuper, r.rolbypassrls)") +
         in_catalog(
             ", (SELECT pg_catalog.concat_ws(':', l.oid, l.nspowner)"
             " FROM pg_catalog.pg_namespace l WHERE l.nspname {=} 'latchkey'),"
             " (SELECT pg_catalog.string_agg(pg_catalog.concat_ws(':', t.oid, t.xmin, t.tgenabled,"
             " p.oid, p.xmin), ' ' ORDER BY t.oid)"
             " FROM pg_catalog.pg_trigger t JOIN pg_catalog.pg_proc p ON p.oid {=} t.tgfoid"
             " WHERE t.tgrelid {=} c.oid AND ") +
         are_ours("t.tgname") +
         in_catalog(
             "), (SELECT pg_catalog.string_agg(pg_catalog.concat_ws(':', a.attnum, a.attname,"
             " a.xmin, pg_catalog.has_column_privilege(c.oid, a.attnum, 'SELECT')), ' '"
             " ORDER BY a.attnum) FROM pg_catalog.pg_attribute a WHERE a.attrelid {=} c.oid AND ") +
         is_mapped(source) +
         in_catalog(
             "), (SELECT pg_catalog.string_agg(pg_catalog.concat_ws(':', e.oid, e.xmin), ' '"
             " ORDER BY e.oid) FROM pg_catalog.pg_attribute a"
             " JOIN pg_catalog.pg_type y ON y.oid {=} a.atttypid"
             " JOIN pg_catalog.pg_enum e ON e.enumtypid {=} ANY (ARRAY[y.oid, y.typelem,"
             " y.typbasetype]) WHERE a.attrelid {=} c.oid AND ") +
         is_mapped(source) +
         in_catalog(
             "), (SELECT pg_catalog.string_agg(pg_catalog.concat_ws(':', y.oid, y.xmin), ' '"
             " ORDER BY y.oid) FROM pg_catalog.pg_policy y WHERE y.polrelid {=} c.oid),"
             " (SELECT pg_catalog.string_agg(pg_catalog.concat_ws(':', w.oid, w.xmin), ' '"
             " ORDER BY w.oid) FROM pg_catalog.pg_rewrite w WHERE w.ev_class {=} c.oid),"
             " (SELECT pg_catalog.string_agg(i.inhparent::pg_catalog.text, ' '"
             " ORDER BY i.inhparent) FROM pg_catalog.pg_inherits i WHERE i.inhrelid {=} c.oid),"
             " (WITH RECURSIVE ") +
         parts() +
         in_catalog(
             " SELECT pg_catalog.encode(pg_catalog.sha256(pg_catalog.convert_to("
             "pg_catalog.string_agg(pg_catalog.concat_ws(':', q.oid, q.relowner, q.relfilenode),"
             " ' ' ORDER BY q.oid), 'UTF8')), 'hex')"
             " FROM part JOIN pg_catalog.pg_class q ON q.oid {=} part.oid)") +
         // Strangers come with a second table, with a role that may read everything, or with
         // triggers that a third role owns.
         (read.size() > 1 || source.allow_superuser || writes ? ", " + foreign_code(source, read)
                                                              : "") +
         ")" + from_table(source.table);
}

}  // namespace

std::string time_zone_sql(const SourceConfig& source) {
  return "SELECT pg_catalog.timezone(" + quote_literal(source.time_zone) +
         ", '2000-01-01'::pg_catalog.timestamp)";
}

std::string identity_rights_sql() {
  return "SELECT pg_catalog.has_function_privilege('pg_catalog.pg_control_system()', 'EXECUTE')";
}

std::string identity_sql(bool may_read_identifier) {
  return "SELECT " +
         std::string(may_read_identifier ? "(SELECT s.system_identifier::pg_catalog.text"
                                           " FROM pg_catalog.pg_control_system() s)"
                                         : "NULL::pg_catalog.text") +
         // The timeline of what is written now; pg_control_checkpoint() tells that of the last
         // checkpoint, which may be older than the promotion.
         ", CASE WHEN NOT pg_catalog.pg_is_in_recovery() THEN pg_catalog.substr("
         "pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn()), 1, 8) END";
}

std::string versions_sql(const std::vector<const SourceConfig*>& sources) {
  std::vector<TableName> read;
  for (const SourceConfig* source : sources) read.push_back(source->table);
  std::string list;
  for (const SourceConfig* source : sources) {
    list += (list.empty() ? "(" : ", (") + version_of(*source, read) + ")";
  }
  return "pg_catalog.array_to_json(ARRAY[" + list + "]::pg_catalog.text[])::pg_catalog.text";
}

std::string inspect_sql(const SourceConfig& source, const std::vector<TableName>& read) {
  return in_catalog(
             "SELECT coalesce((SELECT pg_catalog.json_build_object("
             "'is_table', c.relkind {=} ANY (ARRAY['r', 'p']::pg_catalog.\"char\"[]),"
             "'schema_usable', pg_catalog.has_schema_privilege(n.oid, 'USAGE'),"
             "'by_policy', pg_catalog.row_security_active(c.oid),"
             "'rows_hidden', pg_catalog.row_security_active(c.oid) AND NOT ") +
         policies_allow('r') +
         ",'rows_write_hidden', pg_catalog.row_security_active(c.oid) AND NOT " +
         policies_allow('w') + ",'superuser', " + this_role("r.rolsuper") + ",'bypasses_rls', " +
         this_role("r.rolbypassrls AND NOT r.rolsuper") +
         in_catalog(
             ",'has_parts', EXISTS (SELECT FROM pg_catalog.pg_inherits i"
             " WHERE i.inhparent {=} c.oid),"
             "'is_part', EXISTS (SELECT FROM pg_catalog.pg_inherits i WHERE i.inhrelid {=} c.oid),"
             "'subscribed', EXISTS (SELECT FROM pg_catalog.pg_subscription_rel s"
             " WHERE s.srrelid {=} c.oid),"
             "'columns', ") +
         columns() + ",'unreadable', " +
         columns_where("NOT pg_catalog.has_column_privilege(c.oid, a.attnum, 'SELECT')") +
         ",'unwritable', " +
         columns_where("NOT pg_catalog.has_column_privilege(c.oid, a.attnum, 'UPDATE')") +
         ",'not_null', " + columns_where("a.attnotnull") +
         in_catalog(
             ",'unique', (SELECT coalesce(pg_catalog.json_agg(a.attname), '[]')"
             " FROM pg_catalog.pg_index i"
             " JOIN pg_catalog.pg_attribute a ON a.attrelid {=} i.indrelid"
             " AND a.attnum {=} i.indkey[0]"
             " WHERE i.indrelid {=} c.oid AND i.indisunique AND i.indisvalid"
             " AND i.indnkeyatts {=} 1 AND i.indpred IS NULL),"
             "'triggers', (SELECT coalesce(pg_catalog.json_object_agg(t.tgname,"
             " pg_catalog.json_build_object('enabled', t.tgenabled,"
             " 'shape', ") +
         kTriggerShapeSql + ", 'attributes', " + kTriggerFunctionSql +
         in_catalog(
             ", 'function', pg_catalog.concat(pn.nspname, '.', p.proname),"
             " 'settings', coalesce(p.proconfig, '{}'::pg_catalog.text[]), 'source', p.prosrc,"
             " 'foreign_owner', CASE WHEN NOT pg_catalog.pg_has_role(p.proowner, c.relowner,"
             " 'MEMBER') THEN pg_catalog.pg_get_userbyid(p.proowner) END)), '{}')"
             " FROM pg_catalog.pg_trigger t JOIN pg_catalog.pg_proc p ON p.oid {=} t.tgfoid"
             " JOIN pg_catalog.pg_namespace pn ON pn.oid {=} p.pronamespace"
             " JOIN pg_catalog.pg_language pl ON pl.oid {=} p.prolang"
             " WHERE t.tgrelid {=} c.oid AND NOT t.tgisinternal AND ") +
         are_ours("t.tgname") +
         in_catalog(
             "),"
             "'foreign_schema_owner', (SELECT pg_catalog.pg_get_userbyid(l.nspowner)"
             " FROM pg_catalog.pg_namespace l WHERE l.nspname {=} 'latchkey'"
             " AND NOT pg_catalog.pg_has_role(l.nspowner, c.relowner, 'MEMBER')),"
             "'foreign_code', ") +
         foreign_code(source, read) + ",'owners', (WITH RECURSIVE " + parts() +
         in_catalog(
             " SELECT pg_catalog.string_agg(DISTINCT q.relowner::pg_catalog.text, ' ')"
             " FROM part JOIN pg_catalog.pg_class q ON q.oid {=} part.oid),"
             // A partitioned table's own figure is there only after ANALYZE; its parts know.
             "'rows_estimated', (SELECT CASE WHEN pg_catalog.min(part.reltuples) {>=} 0"
             " THEN pg_catalog.sum(part.reltuples) END FROM pg_catalog.pg_class part"
             " WHERE part.relkind {=} 'r' AND part.oid {=} ANY (ARRAY(SELECT c.oid UNION ALL"
             " SELECT leaf.relid::pg_catalog.oid FROM pg_catalog.pg_partition_tree("
             "CASE WHEN c.relkind {=} 'p' THEN c.oid::pg_catalog.regclass END) leaf))),"
             "'files_tell', NOT EXISTS (WITH RECURSIVE ") +
         parts() +
         in_catalog(
             " SELECT FROM part JOIN pg_catalog.pg_class f ON f.oid {=} part.oid"
             " WHERE f.relkind {<>} ALL (ARRAY['r', 'p']::pg_catalog.\"char\"[])),"
             "'encoding', pg_catalog.getdatabaseencoding(),"
             "'version', (") +
         version_of(source, read) + "))" + from_table(source.table) + "), '{}')::pg_catalog.text";
}

TableFacts TableFacts::from_json(std::string_view text) {
  const json from = json::parse(text);
  TableFacts facts;
  if (from.empty()) return facts;
  facts.exists = true;
  facts.is_table = from.at("is_table").get<bool>();
  facts.schema_usable = from.at("schema_usable").get<bool>();
  from.at("by_policy").get_to(facts.by_policy);
  from.at("rows_hidden").get_to(facts.rows_hidden);
  from.at("rows_write_hidden").get_to(facts.rows_write_hidden);
  from.at("superuser").get_to(facts.superuser);
  from.at("bypasses_rls").get_to(facts.bypasses_rls);
  from.at("has_parts").get_to(facts.has_parts);
  from.at("is_part").get_to(facts.is_part);
  from.at("subscribed").get_to(facts.subscribed);
  from.at("unreadable").get_to(facts.unreadable);
  from.at("unwritable").get_to(facts.unwritable);
  from.at("unique").get_to(facts.unique);
  from.at("not_null").get_to(facts.not_null);
  from.at("foreign_code").get_to(facts.foreign_code);
  from.at("files_tell").get_to(facts.files_tell);
  from.at("encoding").get_to(facts.encoding);
  const auto take = [](const json& value, auto& into) {
    if (!value.is_null()) value.get_to(into);
  };
  take(from.at("rows_estimated"), facts.rows_estimated);
  take(from.at("foreign_schema_owner"), facts.foreign_schema_owner);
  take(from.at("owners"), facts.owners);
  take(from.at("version"), facts.version);
  if (!from.at("columns").is_null()) {
    for (const auto& [name, column] : from.at("columns").items()) {
      column.at("type").get_to(facts.columns[name]);
      const auto output = static_cast<Output>(column.at("output").get<std::string>().at(0));
      if (output != Output::kBuiltIn) facts.outputs[name] = output;
    }
  }
  for (const auto& [name, trigger] : from.at("triggers").items()) {
    Trigger& known = facts.triggers[name];
    known.enabled = trigger.at("enabled").get<std::string>().at(0);
    trigger.at("shape").get_to(known.definition.shape);
    trigger.at("function").get_to(known.definition.function);
    trigger.at("attributes").get_to(known.definition.attributes);
    trigger.at("settings").get_to(known.definition.settings);
    trigger.at("source").get_to(known.definition.source);
    take(trigger.at("foreign_owner"), known.foreign_owner);
  }
  return facts;
}

}  // namespace latchkey
