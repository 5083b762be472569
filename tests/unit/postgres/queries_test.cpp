// The SQL that loads a source, reads single rows again and writes the last use; the ids and arrays
// in its parameters.
#include "loader/postgres/queries.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "loader/postgres/ids.h"
#include "loader/postgres/sql_text.h"
#include "tests/unit/support/queries_fixture.h"

namespace latchkey {
namespace {

using test::good_facts;
using test::Queries;
using test::source_of;
using testing::AllOf;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;

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
