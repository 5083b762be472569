// The SQL that reads a source, and the requirements on the catalogue.
#include "loader/postgres/queries.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "loader/postgres/mapping.h"
#include "loader/postgres/problems.h"
#include "loader/postgres/sql_text.h"
#include "loader/postgres/triggers.h"
#include "loader/postgres/version.h"

namespace latchkey {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
using testing::UnorderedElementsAre;

SourceConfig source_of(const char* preset_name) {
  SourceConfig source = *preset(preset_name);
  source.name = preset_name;
  return source;
}

// A table that meets all requirements of the source.
TableFacts good_facts(const SourceConfig& source) {
  TableFacts facts;
  facts.exists = facts.is_table = true;
  const bool raw = source.encoding == Encoding::kRaw &&
                   (source.scheme == Scheme::kHmac || source.scheme == Scheme::kSha256);
  for (const auto& [role, column] : source.columns) {
    switch (role) {
      case Role::kId: facts.columns[column] = "bigint"; break;
      case Role::kKey: facts.columns[column] = raw ? "bytea" : "text"; break;
      case Role::kEnabled: facts.columns[column] = "boolean"; break;
      case Role::kScopes: facts.columns[column] = "jsonb"; break;
      case Role::kExpiresAt:
      case Role::kNotBefore:
      case Role::kRevokedAt:
      case Role::kDisabledAt:
      case Role::kDeletedAt: facts.columns[column] = "timestamp with time zone"; break;
      default: facts.columns[column] = "text"; break;
    }
  }
  facts.unique = facts.not_null = {*source.column(Role::kId)};
  for (const std::string& name : trigger_names()) {
    facts.triggers[name] = {'A', trigger_definition(source, name), ""};
  }
  return facts;
}

class Queries : public testing::Test {
 protected:
  SourceConfig source_ = source_of("api_keys");
  TableFacts facts_ = good_facts(source_);

  void remap(const char* preset_name) {
    source_ = source_of(preset_name);
    facts_ = good_facts(source_);
  }
  void map(Role role, const std::string& column, const std::string& type) {
    source_.columns[role] = column;
    facts_.columns[column] = type;
    for (auto& [name, trigger] : facts_.triggers) {
      trigger.definition = trigger_definition(source_, name);
    }
  }
  // The paragraph for the only problem.
  std::string problem() {
    const auto found = problems(source_, facts_);
    EXPECT_EQ(found.size(), 1U);
    if (found.empty()) return "";
    EXPECT_EQ(found.front().severity(), Severity::kError);
    return found.front().number() + (" " + found.front().text);
  }
  std::string sql() { return load_sql(source_, facts_); }
};

// ---- problems: cause and remedy

TEST_F(Queries, FindNothingWrongWithTheThreeSchemas) {
  for (const std::string& name : preset_names()) {
    remap(name.c_str());
    EXPECT_THAT(problems(source_, facts_), IsEmpty()) << name;
  }
}

TEST_F(Queries, SayThatTheTableIsMissing) {
  facts_ = {};
  EXPECT_THAT(problem(),
              AllOf(HasSubstr("L101 "), HasSubstr("public.api_keys"), HasSubstr("`table`"),
                    HasSubstr("`conninfo`"), HasSubstr("api_keys\"")));
}

TEST_F(Queries, SayThatTheSchemaMayNotBeUsed) {
  facts_.schema_usable = false;
  EXPECT_THAT(problem(), AllOf(HasSubstr("L103 "), HasSubstr("latchkey sql grant")));
}

TEST_F(Queries, SayThatItIsNoTable) {
  facts_.is_table = false;
  EXPECT_THAT(problem(),
              AllOf(HasSubstr("L102 "), HasSubstr("is not a table"), HasSubstr("set `table`")));
}

TEST_F(Queries, SayWhichColumnIsMissingAndWhichThereAre) {
  facts_.columns.erase("tenant_id");
  EXPECT_THAT(problem(), AllOf(HasSubstr("L104 "), HasSubstr("tenant = \"tenant_id\""),
                               HasSubstr("token_hash, "), HasSubstr("[[source]] \"api_keys\"")));
  facts_.columns.erase("scopes");
  EXPECT_EQ(problems(source_, facts_).size(), 2U) << "one paragraph for each";
}

TEST_F(Queries, SayWhichColumnMayNotBeRead) {
  facts_.unreadable = {"scopes", "not_ours"};
  EXPECT_THAT(problem(),
              AllOf(HasSubstr("L105 "), HasSubstr("\"scopes\""), HasSubstr("latchkey sql grant")));
}

TEST_F(Queries, SayThatTheIdDoesNotIdentify) {
  facts_.unique.clear();
  EXPECT_THAT(problem(), AllOf(HasSubstr("L106 "), HasSubstr("\"id\""), HasSubstr("unique"),
                               HasSubstr("primary key")));
  facts_ = good_facts(source_);
  facts_.not_null.clear();
  EXPECT_THAT(problem(), HasSubstr("NOT NULL"));
}

TEST_F(Queries, SayThatTheKeysTypeDoesNotFitTheEncoding) {
  facts_.columns["token_hash"] = "text";
  EXPECT_THAT(problem(), AllOf(HasSubstr("L107 "), HasSubstr("token_hash"),
                               HasSubstr("needs bytea"), HasSubstr("encoding = \"hex\"")));
  source_.encoding = Encoding::kHex;
  EXPECT_THAT(problems(source_, facts_), IsEmpty());
  facts_.columns["token_hash"] = "bytea";
  EXPECT_THAT(problem(), AllOf(HasSubstr("token_hash"), HasSubstr("encoding = \"raw\"")));
}

TEST_F(Queries, DoNotAdviseWhatIsSetAlready) {
  for (const char* name : {"external_credentials", "auth_api_key"}) {
    remap(name);  // the column's type is text for any encoding, and the value is raw
    facts_.columns[*source_.column(Role::kKey)] = "bytea";
    EXPECT_THAT(problem(), AllOf(HasSubstr("`scheme`"), Not(HasSubstr("encoding = \"raw\""))));
  }
}

TEST_F(Queries, SayThatAFlagIsNone) {
  map(Role::kEnabled, "on", "integer");
  EXPECT_THAT(problem(), AllOf(HasSubstr("L108 "), HasSubstr("\"on\""), HasSubstr("boolean"),
                               HasSubstr("`status`")));
}

TEST_F(Queries, RefuseAFlagWhoseNameSaysTheOpposite) {
  const Role refusals[] = {Role::kRevokedAt, Role::kDisabledAt, Role::kDeletedAt};
  for (const char* good : {"is_active", "active", "isEnabled", "VALID", "key_allowed"}) {
    for (const Role role : refusals) {
      map(role, good, "boolean");
      EXPECT_THAT(problem(), AllOf(HasSubstr("L108 "), HasSubstr(good), HasSubstr("`enabled`")));
      source_.columns.erase(role);
    }
    map(Role::kEnabled, good, "boolean");
    EXPECT_THAT(problems(source_, facts_), IsEmpty()) << good;
    source_.columns.erase(Role::kEnabled);
  }
  for (const char* bad : {"is_revoked", "disabled", "isBlocked", "deactivated", "soft_deleted"}) {
    map(Role::kEnabled, bad, "boolean");
    EXPECT_THAT(problem(), AllOf(HasSubstr("L108 "), HasSubstr(bad), HasSubstr("`revoked_at`")));
    source_.columns.erase(Role::kEnabled);
    for (const Role role : refusals) {
      map(role, bad, "boolean");
      EXPECT_THAT(problems(source_, facts_), IsEmpty()) << bad;
      source_.columns.erase(role);
    }
  }
  // A name with neither meaning, or both, is accepted; and a column of moments has no such
  // meaning.
  for (const char* neither :
       {"flag", "activity", "not_active", "active_or_blocked", "interactive"}) {
    for (const Role role : {Role::kEnabled, Role::kRevokedAt}) {
      map(role, neither, "boolean");
      EXPECT_THAT(problems(source_, facts_), IsEmpty()) << neither;
      source_.columns.erase(role);
    }
  }
  map(Role::kRevokedAt, "active_until", "timestamp without time zone");
  EXPECT_THAT(problems(source_, facts_), IsEmpty());
}

TEST_F(Queries, CallNoTriggerOutdatedBeforeTheMappingIsRight) {
  facts_.triggers.begin()->second.definition.source += " changed";
  EXPECT_THAT(problem(), HasSubstr("L112 "));
  source_.columns[Role::kTenant] = "no_such";
  EXPECT_THAT(problem(), HasSubstr("L104 "));
}

TEST_F(Queries, SayThatAColumnHoldsNoKeys) {
  source_ = *preset("external_credentials");
  source_.name = "s";
  facts_ = good_facts(source_);
  const std::string key = *source_.column(Role::kKey);
  for (const char* type : {"boolean", "date", "bigint", "text[]", "jsonb", "numeric", "inet"}) {
    facts_.columns[key] = type;
    EXPECT_THAT(problem(), AllOf(HasSubstr("L107 "), HasSubstr(type), HasSubstr("let in")));
  }
  for (const char* type : {"text", "character varying", "character", "uuid"}) {
    facts_.columns[key] = type;
    EXPECT_THAT(problems(source_, facts_), IsEmpty()) << type;
  }
  facts_.columns[key] = "public.citext";
  facts_.outputs[key] = Output::kExtension;
  EXPECT_THAT(problems(source_, facts_), IsEmpty());
}

TEST_F(Queries, SayThatAColumnHoldsNoScopes) {
  for (const char* type : {"xml", "boolean", "bigint", "integer[]", "date", "bytea"}) {
    map(Role::kScopes, "scopes", type);
    EXPECT_THAT(problem(), AllOf(HasSubstr("L117 "), HasSubstr(type)));
  }
  for (const char* type :
       {"text", "character varying", "text[]", "character varying[]", "json", "jsonb"}) {
    map(Role::kScopes, "scopes", type);
    EXPECT_THAT(problems(source_, facts_), IsEmpty()) << type;
  }
  map(Role::kScopes, "scopes", "public.mood[]");
  facts_.outputs["scopes"] = Output::kEnum;
  EXPECT_THAT(problems(source_, facts_), IsEmpty());
}

TEST_F(Queries, SayThatATimeIsNone) {
  for (const char* type : {"text", "time without time zone", "interval", "numeric", "jsonb"}) {
    facts_.columns["expires_at"] = type;
    EXPECT_THAT(problem(), AllOf(HasSubstr("L109 "), HasSubstr("\"expires_at\""), HasSubstr(type),
                                 HasSubstr("must be a timestamp")));
  }
  for (const char* type :
       {"timestamp with time zone", "timestamp without time zone", "date", "bigint", "integer"}) {
    facts_.columns["expires_at"] = type;
    EXPECT_THAT(problems(source_, facts_), IsEmpty()) << type;
  }
}

TEST_F(Queries, SayThatRowsAreHidden) {
  facts_.rows_hidden = true;
  EXPECT_THAT(problem(),
              AllOf(HasSubstr("L110 "), HasSubstr("row level security"), HasSubstr("policy"),
                    HasSubstr("latchkey sql grant --source api_keys")));
}

TEST_F(Queries, SayWhatIsWrongWithTriggers) {
  const auto advice = HasSubstr("latchkey sql install --source api_keys");
  facts_.triggers.clear();
  EXPECT_THAT(problem(),
              AllOf(HasSubstr("L111 "), HasSubstr("triggers latchkey_insert, latchkey_update"),
                    HasSubstr("missing"), advice));
  facts_ = good_facts(source_);
  facts_.triggers.erase("latchkey_truncate");
  EXPECT_THAT(problem(), AllOf(HasSubstr("trigger latchkey_truncate missing"), advice));
  for (const char enabled : {'D', 'O', 'R'}) {
    facts_ = good_facts(source_);
    facts_.triggers["latchkey_delete"].enabled = enabled;
    EXPECT_THAT(problem(),
                AllOf(HasSubstr("L113 "), HasSubstr("latchkey_delete not ENABLE ALWAYS"), advice));
  }
  facts_ = good_facts(source_);
  // Any difference from the definition that we would print, in any part.
  const auto changed = [&](const auto& change) {
    facts_ = good_facts(source_);
    change(facts_.triggers["latchkey_update"].definition);
    EXPECT_THAT(problem(),
                AllOf(HasSubstr("L112 "), HasSubstr("latchkey_update made for another"), advice));
  };
  changed([](TriggerDefinition& d) { d.source = "BEGIN RETURN NULL; END"; });
  changed([](TriggerDefinition& d) { d.source += " "; });
  changed([](TriggerDefinition& d) { d.attributes = "sql f v f f f f u 0 2279"; });
  changed([](TriggerDefinition& d) { d.attributes = "plpgsql f v f t f f u 0 2279"; });
  changed([](TriggerDefinition& d) { d.settings.pop_back(); });
  changed([](TriggerDefinition& d) { d.settings.front() = "search_path=public"; });
  changed([](TriggerDefinition& d) { d.function = "public.\"notify public.api_keys\""; });
  changed([](TriggerDefinition& d) { d.shape = "16 old_rows new_rows f 0 f f 0 0"; });
  changed([](TriggerDefinition& d) { d.shape = "16 old_rows new_rows t 0 f f 0 1"; });
  changed([&](TriggerDefinition& d) { d = trigger_definition(source_, "latchkey_insert"); });
}

TEST_F(Queries, SayThatWhatTellsOfChangesIsAStrangers) {
  facts_.triggers["latchkey_delete"].foreign_owner = "eve";
  EXPECT_THAT(problem(), AllOf(HasSubstr("L119 "), HasSubstr("latchkey_delete (eve)")));
  facts_ = good_facts(source_);
  facts_.foreign_schema_owner = "eve";
  EXPECT_THAT(problem(), AllOf(HasSubstr("L119 "), HasSubstr("schema latchkey (eve)")));
}

TEST_F(Queries, RefuseASuperuserUnlessItIsWanted) {
  facts_.superuser = true;
  EXPECT_THAT(problem(), AllOf(HasSubstr("L002 "), HasSubstr("allow_superuser = true")));
  source_.allow_superuser = true;
  EXPECT_THAT(problems(source_, facts_), IsEmpty());
}

TEST_F(Queries, RefuseTypesAndCodeOfStrangers) {
  facts_.outputs["tenant_id"] = Output::kForeign;
  facts_.columns["tenant_id"] = "public.odd";
  EXPECT_THAT(problem(),
              AllOf(HasSubstr("L117 "), HasSubstr("\"tenant_id\""), HasSubstr("public.odd")));
  facts_.outputs["tenant_id"] = Output::kEnum;
  EXPECT_THAT(problems(source_, facts_), IsEmpty());
  facts_.foreign_code = {"public.f(integer) of role eve"};
  EXPECT_THAT(problem(), AllOf(HasSubstr("L118 "), HasSubstr("f(integer) of role eve")));
}

TEST_F(Queries, SaySeveralThingsAtOnce) {
  facts_.rows_hidden = true;
  facts_.triggers.clear();
  facts_.unique.clear();
  EXPECT_EQ(problems(source_, facts_).size(), 3U);
}

// ---- the catalogue's answer

TEST_F(Queries, ReadTheCatalogueFromJson) {
  const TableFacts facts = TableFacts::from_json(R"({
      "is_table": true, "schema_usable": true, "by_policy": true, "rows_hidden": true,
      "rows_write_hidden": false, "superuser": true, "bypasses_rls": false,
      "has_parts": false, "is_part": true, "subscribed": false,
      "columns": {"id": {"type": "bigint", "output": "b"},
                  "mood": {"type": "public.mood", "output": "e"},
                  "weird \"name\"": {"type": "text[]", "output": "b"}},
      "unreadable": ["secret"], "unwritable": ["key"], "not_null": ["id"], "unique": ["id", "b"],
      "virtual": ["key"],
      "with_default": ["id"],
      "foreign_schema_owner": "eve", "foreign_code": ["f() of eve"], "owners": "10 17",
      "rows_estimated": 1.5e7, "files_tell": true, "prepared_transactions": true,
      "encoding": "UTF8", "layout": "17 id:1:20",
      "version": "17 r",
      "triggers": {"latchkey_insert": {"enabled": "A", "shape": "4", "attributes": "plpgsql",
                                       "function": "latchkey.f", "settings": ["a=b"],
                                       "source": "body", "foreign_owner": null},
                   "latchkey_update": {"enabled": "O", "shape": "", "attributes": "",
                                       "function": "", "settings": [], "source": "",
                                       "foreign_owner": "eve"}}})");
  EXPECT_TRUE(facts.exists && facts.is_table && facts.rows_hidden && facts.by_policy);
  EXPECT_TRUE(facts.files_tell);
  EXPECT_TRUE(facts.superuser && !facts.has_parts && facts.is_part && !facts.subscribed);
  EXPECT_EQ(facts.columns.at("weird \"name\""), "text[]");
  EXPECT_EQ(facts.output("mood"), Output::kEnum);
  EXPECT_EQ(facts.output("id"), Output::kBuiltIn);
  EXPECT_THAT(facts.unreadable, ElementsAre("secret"));
  EXPECT_THAT(facts.unique, UnorderedElementsAre("id", "b"));
  EXPECT_THAT(facts.not_null, ElementsAre("id"));
  EXPECT_EQ(facts.foreign_schema_owner, "eve");
  EXPECT_EQ(facts.owners, "10 17");
  const TableFacts::Trigger& insert = facts.triggers.at("latchkey_insert");
  EXPECT_EQ(insert.enabled, 'A');
  EXPECT_EQ(insert.definition, (TriggerDefinition{"4", "latchkey.f", "plpgsql", {"a=b"}, "body"}));
  EXPECT_EQ(insert.foreign_owner, "");
  EXPECT_EQ(facts.triggers.at("latchkey_update").foreign_owner, "eve");
  EXPECT_EQ(facts.rows_estimated, 1.5e7);
  EXPECT_EQ(facts.encoding, "UTF8");
  EXPECT_EQ(facts.version, "17 r");

  EXPECT_FALSE(TableFacts::from_json("{}").exists);
  const auto answer = [](const std::string& columns) {
    return R"({"is_table": false, "schema_usable": false, "by_policy": false, "rows_hidden": false,
      "rows_write_hidden": false, "superuser": false, "bypasses_rls": false,
      "has_parts": false, "is_part": false, "subscribed": false, "columns": )" +
           columns +
           R"(,
      "unreadable": [], "unwritable": [], "not_null": [], "unique": [], "virtual": [], "with_default": [], "triggers": {},
      "foreign_schema_owner": null, "foreign_code": [], "owners": null, "rows_estimated": null, "files_tell": false, "prepared_transactions": false, "encoding": "LATIN1", "layout": "1 ", "version": null})";
  };
  EXPECT_TRUE(TableFacts::from_json(answer("null")).columns.empty());
  EXPECT_EQ(TableFacts::from_json(answer(R"({"a": {"type": "x", "output": "n"}})")).output("a"),
            Output::kNamed);
  for (const std::string& bad :
       {std::string(), std::string("{"), std::string(R"({"is_table": 1})"),
        std::string(R"({"is_table": true})"), answer(R"({"a": {"type": "x", "output": "z"}})"),
        answer(R"({"a": {"type": "x", "output": ""}})"), answer(R"({"a": {"output": "b"}})")}) {
    EXPECT_THROW((void)TableFacts::from_json(bad), CatalogueError) << bad;
  }
}

TEST_F(Queries, ReadTheVersionsOfTablesFromJson) {
  EXPECT_THAT(versions_from_json(R"(["1 a", null])", 2), ElementsAre("1 a", ""));
  for (const char* bad : {"", "{}", "[]", R"(["1"])", R"(["1", 2])", R"(["1", "2", "3"])"}) {
    EXPECT_THROW((void)versions_from_json(bad, 2), CatalogueError) << bad;
  }
}

TEST_F(Queries, AskTheCatalogueForTheQuotedName) {
  source_.table = {"it's", "a\\b"};
  EXPECT_THAT(inspect_sql(source_, {&source_}, true, false),
              HasSubstr(R"((0, 'it''s'::pg_catalog.name, E'a\\b'::pg_catalog.name, )"));
}

// ---- queries

TEST_F(Queries, QuoteEveryNameThatIsNotTheirOwn) {
  const std::string evil = R"(x"; DROP TABLE "y'; --)";
  const std::string quoted = R"("x""; DROP TABLE ""y'; --")";
  const std::string literal = R"('x"; DROP TABLE "y''; --')";
  source_.table = {evil, evil};
  const std::string quoted_table = quote_literal(latchkey::quoted(source_.table));
  for (std::size_t i = 0; i < kRoles; ++i) source_.columns[static_cast<Role>(i)] = evil;
  source_.time_zone = "a'b\\";
  source_.status_active = {"o'k"};
  for (const char* type : {"text", "boolean", "bigint", "timestamp without time zone", "text[]"}) {
    facts_.columns[evil] = type;
    for (const Scheme scheme :
         {Scheme::kPlain, Scheme::kSha256, Scheme::kHmac, Scheme::kJwt, Scheme::kJwtJti}) {
      source_.scheme = scheme;
      for (std::string text : {load_sql(source_, facts_), reread_sql(source_, facts_)}) {
        for (const std::string& allowed : {quoted, literal, quoted_table}) {
          for (std::size_t at; (at = text.find(allowed)) != std::string::npos;) {
            text.erase(at, allowed.size());
          }
        }
        EXPECT_THAT(text, AllOf(Not(HasSubstr("DROP")), Not(HasSubstr("o'k'"))));
      }
    }
  }
  facts_.columns[evil] = "timestamp without time zone";
  EXPECT_THAT(sql(), HasSubstr(R"(AT TIME ZONE E'a''b\\')"));
}

TEST_F(Queries, NeverSelectAKeyThatIsStoredInTheClear) {
  for (const char* name : {"external_credentials", "auth_api_key"}) {
    remap(name);
    const std::string key = "t.\"" + *source_.column(Role::kKey) + "\"";
    const std::string as_text = key + "::pg_catalog.text";
    const std::string length = "pg_catalog.octet_length(" + as_text + ") OPERATOR(pg_catalog.";
    const std::string digest = "pg_catalog.sha256(pg_catalog.convert_to(" + as_text + ", 'UTF8'))";
    const std::string claims = "pg_catalog.split_part(" + as_text + ", '.', 2)";
    for (std::string text : {load_sql(source_, facts_), reread_sql(source_, facts_)}) {
      ASSERT_THAT(text, HasSubstr(digest));
      for (const std::string& allowed : {length, digest, claims}) {
        for (std::size_t at; (at = text.find(allowed)) != std::string::npos;) {
          text.erase(at, allowed.size());
        }
      }
      EXPECT_THAT(text, Not(HasSubstr(key)));
    }
  }
}

TEST_F(Queries, DigestAJtiByItsTypeAndFetchNoClaims) {
  remap("auth_api_key");
  source_.scheme = Scheme::kJwtJti;
  source_.columns[Role::kKey] = "jti";
  facts_ = good_facts(source_);
  const std::pair<const char*, const char*> cases[] = {
      {"uuid",
       "pg_catalog.sha256(pg_catalog.byteacat(pg_catalog.decode('00', 'hex'),"
       " pg_catalog.uuid_send(t.\"jti\")))"},
      {"text", "pg_catalog.sha256(pg_catalog.convert_to(t.\"jti\"::pg_catalog.text, 'UTF8'))"},
      {"character varying",
       "pg_catalog.sha256(pg_catalog.convert_to(t.\"jti\"::pg_catalog.text, 'UTF8'))"},
      {"bigint", "pg_catalog.sha256(pg_catalog.convert_to(t.\"jti\"::pg_catalog.text, 'UTF8'))"},
  };
  for (const auto& [type, digest] : cases) {
    facts_.columns["jti"] = type;
    EXPECT_THAT(problems(source_, facts_), IsEmpty()) << type;
    for (const std::string& text : {load_sql(source_, facts_), reread_sql(source_, facts_)}) {
      EXPECT_THAT(text, AllOf(HasSubstr(digest), Not(HasSubstr("split_part")))) << type;
    }
  }
  facts_.columns["jti"] = "bytea";
  EXPECT_THAT(problem(), AllOf(HasSubstr("\"jwt-hs256\""), HasSubstr("a jti, as uuid or text")));
}

TEST_F(Queries, SelectTheSameInLoadAndReread) {
  const std::string load = load_sql(source_, facts_), reread = reread_sql(source_, facts_);
  // The statement locks the table before the COPY takes its snapshot.
  ASSERT_TRUE(load.starts_with("DECLARE latchkey_lock CURSOR FOR SELECT FROM ")) << load;
  ASSERT_TRUE(load.ends_with(") TO STDOUT (FORMAT binary)"));
  const std::size_t from = load.find(";COPY (SELECT ") + 7;
  const std::string selection = load.substr(from, load.find(" WHERE ") - from);
  EXPECT_TRUE(reread.starts_with(selection + " WHERE ")) << reread;
  EXPECT_THAT(load, HasSubstr("FROM \"public\".\"api_keys\" t"));
}

TEST_F(Queries, CompareIdsWithoutACastWhereAnIndexCanServe) {
  const std::pair<const char*, const char*> cases[] = {
      {"bigint", R"( AND t."id" {=} ANY ($1::pg_catalog.int8[]))"},
      {"smallint", R"( AND t."id" {=} ANY ($1::pg_catalog.int8[]))"},
      {"uuid", R"( AND t."id" {=} ANY ($1::pg_catalog.uuid[]))"},
      {"text", R"( AND t."id" {=} ANY ($1::pg_catalog.text[]))"},
      {"character varying", R"( AND t."id" {=} ANY ($1::pg_catalog.text[]))"},
      {"numeric", R"( AND t."id" {=} ANY ($1::pg_catalog.numeric[]))"},
      {"bytea", R"( AND t."id" {=} ANY ($1::pg_catalog.bytea[]))"},
      {"character", R"( AND t."id" {=} ANY ($1::pg_catalog.bpchar[]))"},
      {"date", R"( AND pg_catalog.concat(t."id") {=} ANY ($1::pg_catalog.text[]))"},
  };
  for (const auto& [type, where] : cases) {
    facts_.columns["id"] = type;
    EXPECT_TRUE(reread_sql(source_, facts_).ends_with(in_catalog(where)))
        << reread_sql(source_, facts_);
  }
}

TEST_F(Queries, ReadTimesOfEachType) {
  facts_.columns["expires_at"] = "timestamp without time zone";
  source_.time_zone = "Europe/Berlin";
  EXPECT_THAT(sql(),
              HasSubstr(R"((t."expires_at"::pg_catalog.timestamp AT TIME ZONE 'Europe/Berlin'))"));
  facts_.columns["expires_at"] = "date";
  EXPECT_THAT(sql(), HasSubstr(R"(t."expires_at"::pg_catalog.timestamp AT TIME ZONE)"));
  facts_.columns["expires_at"] = "timestamp with time zone";
  EXPECT_THAT(sql(), AllOf(HasSubstr(R"(t."expires_at")"), Not(HasSubstr("AT TIME ZONE"))));
  source_.columns.erase(Role::kExpiresAt);
  EXPECT_THAT(sql(), Not(HasSubstr("expires_at"))) << "what a table has not is not sent";
}

// to_timestamp() raises an error for a time outside its range (an expiry in nanoseconds, the
// largest bigint for "never"): one such row would make every load fail. And a number beyond 2200
// counts other units than seconds.
TEST_F(Queries, ReadIntegerTimesThatNoDateCanHold) {
  facts_.columns["expires_at"] = "bigint";
  EXPECT_THAT(sql(), AllOf(HasSubstr("to_timestamp"), HasSubstr("'7258118400'"), HasSubstr(kNoTime),
                           Not(HasSubstr("'infinity'"))));
}

TEST_F(Queries, PutWhatRefusesBeforeWhatAccepts) {
  source_ = source_of("api_keys");
  map(Role::kDeletedAt, "gone", "timestamp with time zone");
  map(Role::kRevokedAt, "revoked", "boolean");
  map(Role::kEnabled, "on", "boolean");
  const std::string status = R"((t."status"::pg_catalog.text) COLLATE pg_catalog."C")";
  const auto is = [&](const std::string& values) {
    return " WHEN " + status + in_catalog(" {=} ") + values;
  };
  EXPECT_THAT(sql(), HasSubstr(R"(CASE WHEN t."gone" IS NOT NULL THEN 'x')"
                               R"( WHEN t."revoked" IS NOT FALSE THEN 'r')"
                               R"( WHEN t."on" IS NOT TRUE THEN 'd')" +
                               is("'active' THEN 'a'") + is("'revoked' THEN 'r'") +
                               is("'disabled' THEN 'd' ELSE 'u' END")));
  source_.status_revoked = {"off", "active"};
  EXPECT_THAT(sql(), AllOf(Not(HasSubstr("THEN 'a'")),
                           HasSubstr(is("ANY (ARRAY['off', 'active']::pg_catalog.text[])"))))
      << "a value in both lists refuses";
  source_.status_revoked.clear();
  source_.status_active = {"on", "it's"};
  EXPECT_THAT(sql(), AllOf(Not(HasSubstr("ARRAY[]")),
                           HasSubstr("['on', 'it''s']::pg_catalog.text[]) THEN 'a'")));
  source_.columns.erase(Role::kStatus);
  EXPECT_THAT(sql(), HasSubstr(R"(IS NOT TRUE THEN 'd' ELSE 'a' END)"));
}

TEST_F(Queries, KnowWhetherScopesAreJson) {
  const std::pair<const char*, bool> types[] = {{"jsonb", true},  {"json", true},
                                                {"text[]", true}, {"character varying[]", true},
                                                {"text", false},  {"character varying", false}};
  for (const auto& [type, is_json] : types) {
    facts_.columns["scopes"] = type;
    EXPECT_EQ(scopes_are_json(source_, facts_), is_json) << type;
    EXPECT_EQ(sql().find("to_json(t.\"scopes\")") != std::string::npos,
              std::string_view(type).ends_with("[]"));
  }
  source_.columns.erase(Role::kScopes);
  EXPECT_FALSE(scopes_are_json(source_, facts_));
}

// ---- ids

TEST_F(Queries, KnowIdsOfEachType) {
  const std::string uuid = "0123abcd-0123-4567-89ab-0123456789ef";
  const std::vector<std::tuple<const char*, std::string, bool>> cases = {
      {"bigint", "17", true},
      {"bigint", "-17", true},
      {"integer", "0", true},
      {"smallint", "9223372036854775807", true},
      {"bigint", "-9223372036854775808", true},
      {"bigint", "9223372036854775808", false},
      {"bigint", "", false},
      {"bigint", "+1", false},
      {"bigint", " 1", false},
      {"bigint", "1 ", false},
      {"bigint", "1e3", false},
      {"bigint", "0x1", false},
      {"bigint", "1}", false},
      {"bigint", std::string("1\0", 2), false},
      {"bigint", uuid, false},
      {"uuid", uuid, true},
      {"uuid", "0123ABCD-0123-4567-89AB-0123456789EF", false},  // not in PostgreSQL's form
      {"uuid", uuid.substr(1), false},
      {"uuid", uuid + "0", false},
      {"uuid", "{" + uuid + "}", false},
      {"uuid", "0123abcd0123-4567-89ab-0123456789ef-", false},
      {"uuid", "g123abcd-0123-4567-89ab-0123456789ef", false},
      {"uuid", "", false},
      {"uuid", "17", false},
      {"text", "anything \" \\ {} \xC3\xA9", true},
      {"text", "", true},
      {"text", std::string("a\0b", 3), false},
      {"numeric", "1.5", true},
  };
  for (const auto& [type, id, good] : cases) {
    facts_.columns["id"] = type;
    EXPECT_EQ(is_id(source_, facts_, id), good) << type << " " << id;
  }
}

// ---- the last use

TEST_F(Queries, SayThatTheLastUseMayNotBeWritten) {
  map(Role::kLastUsedAt, "used", "timestamp with time zone");
  facts_.unwritable = {"id", "status"};
  EXPECT_THAT(problems(source_, facts_), IsEmpty()) << "only what we write matters";
  facts_.unwritable.insert("used");
  EXPECT_THAT(problem(), AllOf(HasSubstr("may not update column \"used\""),
                               HasSubstr("last_used_at = \"used\""),
                               HasSubstr("`latchkey sql grant --source api_keys`")));
}

TEST_F(Queries, SayThatAColumnCanHoldNoLastUse) {
  for (const char* type :
       {"timestamp with time zone", "timestamp without time zone", "date", "integer", "bigint"}) {
    map(Role::kLastUsedAt, "used", type);
    EXPECT_THAT(problems(source_, facts_), IsEmpty()) << type;
  }
  for (const char* type : {"text", "smallint", "boolean", "time without time zone", "numeric"}) {
    map(Role::kLastUsedAt, "used", type);
    EXPECT_THAT(problem(), AllOf(HasSubstr("\"used\""), HasSubstr(type), HasSubstr("timestamp")));
  }
}

TEST_F(Queries, NeverReadTheLastUse) {
  const auto selection = [this] { return sql().substr(0, sql().find(" WHERE ")); };
  const std::string before = selection();
  map(Role::kLastUsedAt, "used", "date");
  EXPECT_EQ(selection(), before);
}

TEST_F(Queries, WriteTheLastUseByTheIdsOwnTypeAndTheColumns) {
  source_.time_zone = "Asia/Tokyo";
  const struct {
    const char *id, *ids, *compares;
  } ids[] = {{"integer", "$1::pg_catalog.int8[]", "t.\"id\" {=} u.id"},
             {"uuid", "$1::pg_catalog.uuid[]", "t.\"id\" {=} u.id"},
             {"character varying", "$1::pg_catalog.text[]", "t.\"id\" {=} u.id"},
             {"numeric", "$1::pg_catalog.numeric[]", "t.\"id\" {=} u.id"},
             {"inet", "$1::pg_catalog.text[]", "pg_catalog.concat(t.\"id\") {=} u.id"}};
  const std::string moment = in_catalog(
      "('1970-01-01 00:00:00+00'::pg_catalog.timestamptz {+} (r.us {*} '1 microsecond'"
      "::pg_catalog.interval))");
  const std::pair<const char*, std::string> times[] = {
      {"timestamp with time zone", moment},
      {"timestamp without time zone", "(" + moment + " AT TIME ZONE 'Asia/Tokyo')"},
      {"date", "(" + moment + " AT TIME ZONE 'Asia/Tokyo')::pg_catalog.date"},
      {"bigint", in_catalog("(r.us {/} 1000000)")}};
  for (const auto& [type, time] : times) {
    map(Role::kLastUsedAt, "used", type);
    for (const auto& id : ids) {
      facts_.columns["id"] = id.id;
      EXPECT_THAT(
          last_used_sql(source_, facts_),
          AllOf(HasSubstr(id.ids), HasSubstr(in_catalog(id.compares)), HasSubstr(time + " AS at"),
                HasSubstr("SET \"used\" = u.at"), HasSubstr("SKIP LOCKED")));
    }
  }
}

// An id that the server could not convert to the column's type would fail the whole query.
TEST_F(Queries, AskForIdsThatAreOfTheColumnsType) {
  const struct {
    const char* type;
    std::vector<std::string> good, bad;
  } cases[] = {
      {"bigint",
       {"0", "-9223372036854775808"},
       {"", "+1", "1.0", " 1", "9223372036854775808", "x"}},
      {"uuid", {"00000000-0000-0000-0000-000000000001"}, {"", "1", "{}", "0"}},
      {"numeric",
       {"0", "-1.50", "12345678901234567890123", "NaN", "Infinity", "-Infinity"},
       {"", "-", ".5", "5.", "1e3", "+1", "--1", "-NaN", "1.2.3", " 1", "1 ", "k1"}},
      {"bytea", {"\\x", "\\x00ff"}, {"", "x00", "\\x0", "\\X00", "\\x0G", "\\000", "\\xFF"}},
      {"character", {"", "a b", "\xC3\xA9"}, {std::string("a\0b", 3)}},
      {"text", {"", "anything"}, {std::string("\0", 1)}},
  };
  for (const auto& [type, good, bad] : cases) {
    facts_.columns["id"] = type;
    for (const std::string& id : good) EXPECT_TRUE(is_id(source_, facts_, id)) << type << " " << id;
    for (const std::string& id : bad) EXPECT_FALSE(is_id(source_, facts_, id)) << type << " " << id;
  }
}

TEST_F(Queries, SayThatTriggersSeeNoVirtualColumn) {
  facts_.virtual_columns = {"status", "not_ours"};
  EXPECT_THAT(problem(), AllOf(HasSubstr("\"status\""), HasSubstr("VIRTUAL"), HasSubstr("STORED")));
}

TEST_F(Queries, LoadNothingThatIsNotAsItWasLookedUp) {
  facts_.layout = "17 it's:1:20";
  EXPECT_THAT(load_sql(source_, facts_),
              AllOf(HasSubstr(in_catalog("l.layout {=} '17 it''s:1:20' THEN true")),
                    HasSubstr("'\"public\".\"api_keys\"'::pg_catalog.regclass")));
}

TEST_F(Queries, WriteArraysThatNoIdCanEndEarly) {
  EXPECT_EQ(array_literal({}), "{}");
  EXPECT_EQ(array_literal({"1"}), R"({"1"})");
  EXPECT_EQ(array_literal({"1", "", "NULL"}), R"({"1","","NULL"})");
  EXPECT_EQ(array_literal({"a\"b", "c\\d", "e,f", "{g}", "h'i"}),
            R"({"a\"b","c\\d","e,f","{g}","h'i"})");
  EXPECT_EQ(array_literal({R"(\)", R"(\")", R"(","x)"}), R"({"\\","\\\"","\",\"x"})");
}

}  // namespace
}  // namespace latchkey
