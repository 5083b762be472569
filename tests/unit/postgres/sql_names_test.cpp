// The search_path never affects our SQL: for every table, each statement that we send or print
// qualifies each operator, function, type and relation in it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "loader/postgres/catalogue.h"
#include "loader/postgres/identity.h"
#include "loader/postgres/queries.h"
#include "loader/postgres/session_setup.h"
#include "loader/postgres/sql_text.h"
#include "loader/postgres/triggers.h"
#include "loader/postgres/version.h"
#include "tests/unit/support/sql_tokens.h"

namespace latchkey {
namespace {

using testing::IsEmpty;

using test::unnamed;

SourceConfig source_of(const std::string& name) {
  SourceConfig source = *preset(name);
  source.name = name;
  source.columns[Role::kLastUsedAt] = "used";
  return source;
}

const std::vector<std::string> kTypes = {"smallint",
                                         "integer",
                                         "bigint",
                                         "uuid",
                                         "text",
                                         "character varying",
                                         "character",
                                         "numeric",
                                         "boolean",
                                         "bytea",
                                         "date",
                                         "timestamp without time zone",
                                         "timestamp with time zone",
                                         "jsonb",
                                         "json",
                                         "text[]",
                                         "public.mood",
                                         "public.mood[]",
                                         "inet"};

// Calls `f` for tables with every role, every type and every scheme.
template <typename F>
void for_each_table(const F& f) {
  for (const Scheme scheme :
       {Scheme::kPlain, Scheme::kSha256, Scheme::kHmac, Scheme::kJwt, Scheme::kJwtJti}) {
    for (const Encoding encoding : {Encoding::kRaw, Encoding::kHex}) {
      for (const std::string& type : kTypes) {
        for (const Output output : {Output::kBuiltIn, Output::kEnum, Output::kExtension}) {
          SourceConfig source = source_of("api_keys");
          source.scheme = scheme;
          source.encoding = encoding;
          source.status_revoked = {"a", "b"};
          TableFacts facts;
          for (std::size_t i = 0; i < kRoles; ++i) {
            const auto role = static_cast<Role>(i);
            source.columns[role] = role_name(role);
            facts.columns[role_name(role)] = type;
            if (output != Output::kBuiltIn) facts.outputs[role_name(role)] = output;
          }
          for (const char* of_text : {"UTF8", "LATIN1", "WIN1252", "SQL_ASCII"}) {
            facts.encoding = of_text;
            f(source, facts);
          }
        }
      }
    }
  }
}

TEST(SqlNames, AreFoundMissing) {
  for (const char* bad :
       {"SELECT a = b", "SELECT f(x)", "SELECT x::text", "SELECT x IN (1)", "SELECT a || b",
        "SELECT x FROM pg_class", "SELECT x FROM public.t", "SELECT a IS DISTINCT FROM b",
        "SELECT x BETWEEN 1 AND 2", "SELECT NULLIF(a, b)", "SELECT - x", "SELECT x LIKE 'a'",
        "SELECT x FROM pg_catalog.a JOIN b ON true", "SELECT public.f(x)"}) {
    if (std::string(bad) == "SELECT public.f(x)" || std::string(bad) == "SELECT x FROM public.t") {
      continue;  // qualified, although with a foreign schema
    }
    EXPECT_GE(unnamed(bad).size(), 1U) << bad << testing::PrintToString(unnamed(bad));
  }
  EXPECT_THAT(unnamed("SELECT pg_catalog.f(x::pg_catalog.text) OPERATOR(pg_catalog.=) ANY ($1)"
                      " FROM pg_catalog.pg_class c WHERE c.a IS NULL AND pg_catalog.count(*)"),
              IsEmpty());
}

TEST(SqlNames, AreFullInWhatReadsAndWritesTables) {
  for_each_table([](const SourceConfig& source, const TableFacts& facts) {
    if (testing::Test::HasFailure()) return;  // one failure is enough to read
    for (const std::string& sql :
         {load_sql(source, facts), reread_sql(source, facts), last_used_sql(source, facts),
          digest_sql(source, facts), digest_rows_sql(source, facts, {1, 2})}) {
      ASSERT_THAT(unnamed(sql), IsEmpty()) << sql;
    }
  });
}

TEST(SqlNames, AreFullInWhatAsksTheCatalogue) {
  const SideRights all{
      .system = true, .position = true, .start = true, .queue = true, .subscriptions = true};
  for (const std::string& name : preset_names()) {
    SourceConfig source = source_of(name), other = source;
    other.table = {"other", "t"};
    for (int i = 0; i < 2; ++i) {
      for (const std::string& sql :
           {inspect_sql(source, {&source, &other}, true, true),
            inspect_sql(source, {&source}, false, false), heartbeat_sql({&source, &other}, all),
            heartbeat_sql({&source}, {}), identity_sql(all), identity_sql({}), side_rights_sql(),
            listen_progress_sql(all), listen_progress_sql({}), time_zone_sql(source),
            session_settings(true), session_settings(false), notify_sql()}) {
        EXPECT_THAT(unnamed(sql), IsEmpty()) << sql;
      }
      source.columns.erase(Role::kLastUsedAt);
    }
  }
}

TEST(SqlNames, AreFullInWhatIsPrinted) {
  for (const std::string& name : preset_names()) {
    const SourceConfig source = source_of(name);
    for (const std::string& sql : {install_sql(source), uninstall_sql(source),
                                   grant_sql(source, "latchkey"), revoke_bypass_sql("latchkey")}) {
      EXPECT_THAT(unnamed(sql), IsEmpty()) << sql;
      EXPECT_NE(sql.find("BEGIN;\nSET LOCAL search_path = pg_catalog, pg_temp;\n"), sql.npos);
    }
  }
}

TEST(SqlText, NamesOperatorsOfTheCatalogueAndTouchesNothingElse) {
  EXPECT_EQ(in_catalog("a {=} b"), "a OPERATOR(pg_catalog.=) b");
  EXPECT_EQ(in_catalog("{*<>}"), "OPERATOR(pg_catalog.*<>)");
  for (const char* same : {"", "{", "}", "{}", "'{}'", "{a}", "'{1,2}'", "{= }"}) {
    EXPECT_EQ(in_catalog(same), same);
  }
}

TEST(SqlText, FindsADollarQuoteThatTheBodyCannotEnd) {
  EXPECT_EQ(dollar_quote("x"), "$latchkey$x$latchkey$");
  EXPECT_EQ(dollar_quote("a $latchkey$ b"), "$latchkey1$a $latchkey$ b$latchkey1$");
  EXPECT_EQ(dollar_quote("ends in $latchkey"), "$latchkey1$ends in $latchkey$latchkey1$");
  EXPECT_EQ(dollar_quote("$latchkey$$latchkey1$"), "$latchkey2$$latchkey$$latchkey1$$latchkey2$");
}

// ---- one session, several owners

TEST(SessionOwner, IsMadeNewBeforeAnotherOwnersTable) {
  TableFacts mine, theirs;
  mine.owners = "100";
  theirs.owners = "200";
  SessionOwner session;
  EXPECT_THAT(session.before("a", mine), IsEmpty()) << "a new session";
  EXPECT_THAT(session.before("b", mine), IsEmpty()) << "the same owner's";
  EXPECT_EQ(session.before("c", theirs),
            (std::vector<std::string>{"DISCARD ALL", session_settings(false)}));
  EXPECT_THAT(session.before("c", theirs), IsEmpty());
  EXPECT_EQ(session.before("a", mine).size(), 2U);
  session.begin();
  EXPECT_THAT(session.before("c", theirs), IsEmpty());
}

TEST(SessionOwner, LooksThroughPoliciesOnlyWhereThereIsNoOtherWay) {
  TableFacts open, guarded;
  open.owners = guarded.owners = "100";
  guarded.by_policy = true;
  SessionOwner session;
  EXPECT_EQ(session.before("g", guarded), (std::vector<std::string>{session_settings(true)}));
  EXPECT_THAT(session.before("g", guarded), IsEmpty());
  EXPECT_EQ(session.before("o", open), (std::vector<std::string>{session_settings(false)}));
}

TEST(SessionOwner, SharesNothingWithATableOfSeveralOwners) {
  TableFacts mixed;
  mixed.owners = "100 200";
  SessionOwner session;
  EXPECT_THAT(session.before("a", mixed), IsEmpty());
  EXPECT_THAT(session.before("a", mixed), IsEmpty());
  EXPECT_EQ(session.before("b", mixed).size(), 2U);
}

}  // namespace
}  // namespace latchkey
