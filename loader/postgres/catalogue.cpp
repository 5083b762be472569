#include "loader/postgres/catalogue.h"

#include <nlohmann/json.hpp>

#include "loader/postgres/catalogue_sql.h"
#include "loader/postgres/sql_text.h"
#include "loader/postgres/strangers.h"
#include "loader/postgres/version.h"

namespace latchkey {
namespace {

using nlohmann::json;
using namespace catalogue;

// A scalar subquery: the base type of a domain, resolved recursively.
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

// regproc, regprocedure, regoper, regoperator, regclass, regtype, regconfig, regdictionary,
// regnamespace, regrole, regcollation, aclitem (pg_type.dat).
constexpr const char* kTypesOfNames =
    "'{24,2202,2203,2204,2205,2206,3734,3769,4089,4096,4191,1033}'::pg_catalog.oid[]";

// JSON: name -> {type, output}, see Output. b is the column's type, e its elements' type.
std::string columns() {
  return "(SELECT pg_catalog.json_object_agg(a.attname, pg_catalog.json_build_object("
         "'type', CASE WHEN e.oid IS NULL THEN pg_catalog.format_type(b.oid, NULL)"
         " ELSE pg_catalog.concat(pg_catalog.format_type(e.oid, NULL), '[]') END,"
         "'output', CASE WHEN " +
         in_catalog("coalesce(e.oid, b.oid) {=} ANY (") + kTypesOfNames + ") THEN 'n' WHEN " +
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

// A JSON array of the names of the table's columns for which `condition` is true.
std::string columns_where(const std::string& condition) {
  return in_catalog(
             "(SELECT coalesce(pg_catalog.json_agg(a.attname), '[]')"
             " FROM pg_catalog.pg_attribute a"
             " WHERE a.attrelid {=} c.oid AND a.attnum {>} 0 AND NOT a.attisdropped AND ") +
         condition + ")";
}

}  // namespace

std::string time_zone_sql(const SourceConfig& source) {
  return "SELECT pg_catalog.timezone(" + quote_literal(source.time_zone) +
         ", '2000-01-01'::pg_catalog.timestamp)";
}

std::string inspect_sql(const SourceConfig& source, const std::vector<const SourceConfig*>& read,
                        bool subscriptions, bool as_stored) {
  // SET LOCAL ends with this transaction: PostgreSQL plans the reading of tables freely.
  return plan_by_index("SET LOCAL") + "SELECT " + (as_stored ? "pg_catalog.convert_to(" : "") +
         in_catalog(
             "coalesce((SELECT pg_catalog.json_build_object("
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
             "'subscribed', ") +
         (subscriptions ? in_catalog("EXISTS (SELECT FROM pg_catalog.pg_subscription_rel s"
                                     " WHERE s.srrelid {=} c.oid)")
                        : "false") +
         ",'columns', " + columns() + ",'unreadable', " +
         columns_where("NOT pg_catalog.has_column_privilege(c.oid, a.attnum, 'SELECT')") +
         ",'unwritable', " +
         columns_where("NOT pg_catalog.has_column_privilege(c.oid, a.attnum, 'UPDATE')") +
         ",'not_null', " + columns_where("a.attnotnull") + ",'with_default', " +
         columns_where(in_catalog("a.atthasdef AND a.attgenerated {=} ''")) + ",'virtual', " +
         columns_where(in_catalog("a.attgenerated {=} 'v'")) +
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
         "s.functions,'owners', (WITH RECURSIVE " + parts() +
         in_catalog(
             " SELECT pg_catalog.string_agg(DISTINCT q.relowner::pg_catalog.text, ' ')"
             " FROM part JOIN pg_catalog.pg_class q ON q.oid {=} part.oid),"
             // A partitioned table has its own figure only after ANALYZE; its parts have theirs.
             // (pg_partition_tree() would wait for a lock on the table.)
             "'rows_estimated', (WITH RECURSIVE ") +
         parts() +
         in_catalog(
             " SELECT CASE WHEN pg_catalog.min(q.reltuples) {>=} 0"
             " THEN pg_catalog.sum(q.reltuples) END"
             " FROM part JOIN pg_catalog.pg_class q ON q.oid {=} part.oid WHERE q.relkind {=} 'r'),"
             "'prepared_transactions', pg_catalog.current_setting('max_prepared_transactions')"
             "::pg_catalog.int4 {>} 0,"
             "'files_tell', NOT EXISTS (WITH RECURSIVE ") +
         parts() +
         in_catalog(
             " SELECT FROM part JOIN pg_catalog.pg_class f ON f.oid {=} part.oid"
             " WHERE f.relkind {<>} ALL (ARRAY['r', 'p']::pg_catalog.\"char\"[])),"
             "'encoding', pg_catalog.getdatabaseencoding(),"
             "'layout', ") +
         layout("c.oid", "w.mapped") + ",'version', " + version_sql() + ") FROM " +
         wanted({&source}) + " CROSS JOIN" + found(strangers(read)) + "), '{}')::pg_catalog.text" +
         (as_stored ? ", pg_catalog.getdatabaseencoding())" : "");
}

namespace {

// A value of the catalogue's type "char" in JSON; it must be one of `known`.
char letter(const json& value, std::string_view known) {
  const auto& text = value.get_ref<const std::string&>();
  if (text.size() != 1 || known.find(text[0]) == known.npos) {
    throw CatalogueError("has a letter that means nothing");
  }
  return text[0];
}

TableFacts read_facts(const json& from) {
  using Trigger = TableFacts::Trigger;
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
  from.at("with_default").get_to(facts.with_default);
  from.at("virtual").get_to(facts.virtual_columns);
  from.at("foreign_code").get_to(facts.foreign_code);
  from.at("files_tell").get_to(facts.files_tell);
  from.at("prepared_transactions").get_to(facts.prepared_transactions);
  from.at("encoding").get_to(facts.encoding);
  const auto take = [](const json& value, auto& into) {
    if (!value.is_null()) value.get_to(into);
  };
  take(from.at("rows_estimated"), facts.rows_estimated);
  take(from.at("foreign_schema_owner"), facts.foreign_schema_owner);
  take(from.at("owners"), facts.owners);
  from.at("layout").get_to(facts.layout);
  take(from.at("version"), facts.version);
  if (!from.at("columns").is_null()) {
    for (const auto& [name, column] : from.at("columns").items()) {
      column.at("type").get_to(facts.columns[name]);
      const auto output = static_cast<Output>(letter(column.at("output"), "beofn"));
      if (output != Output::kBuiltIn) facts.outputs[name] = output;
    }
  }
  for (const auto& [name, trigger] : from.at("triggers").items()) {
    Trigger& known = facts.triggers[name];
    known.enabled = letter(trigger.at("enabled"), "ODRA");
    trigger.at("shape").get_to(known.definition.shape);
    trigger.at("function").get_to(known.definition.function);
    trigger.at("attributes").get_to(known.definition.attributes);
    trigger.at("settings").get_to(known.definition.settings);
    trigger.at("source").get_to(known.definition.source);
    take(trigger.at("foreign_owner"), known.foreign_owner);
  }
  return facts;
}

}  // namespace

TableFacts TableFacts::from_json(std::string_view text) {
  try {
    return read_facts(json::parse(text));
  } catch (const json::exception&) {  // its text would quote the answer
    throw CatalogueError("is not the JSON it should be");
  }
}

}  // namespace latchkey
