// Requirements of a source on its table: the cause and the remedy of each that is not met.
#include "loader/postgres/problems.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "loader/postgres/triggers.h"
#include "tests/unit/support/queries_fixture.h"

namespace latchkey {
namespace {

using test::good_facts;
using test::Queries;
using testing::AllOf;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;

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

TEST_F(Queries, SayThatTriggersSeeNoVirtualColumn) {
  facts_.virtual_columns = {"status", "not_ours"};
  EXPECT_THAT(problem(), AllOf(HasSubstr("\"status\""), HasSubstr("VIRTUAL"), HasSubstr("STORED")));
}

}  // namespace
}  // namespace latchkey
