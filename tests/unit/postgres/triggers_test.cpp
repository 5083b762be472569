// The DDL for notifications of changes, and the parsing of these.
#include "loader/postgres/triggers.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

#include "tests/unit/support/helpers.h"

namespace latchkey {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

// ---- notifications: any role of the database can send any text

TEST(ChangeNotice, ReadsWhatATriggerSends) {
  auto notice = ChangeNotice::parse(R"({"t" : "public.api_keys", "ids" : ["1", "22", ""]})");
  ASSERT_TRUE(notice.has_value());
  EXPECT_EQ(notice->table, "public.api_keys");
  EXPECT_FALSE(notice->truncated);
  EXPECT_EQ(notice->ids, (std::vector<std::string>{"1", "22", ""}));

  notice = ChangeNotice::parse(R"({"t":"a.b","all":true})");
  ASSERT_TRUE(notice.has_value());
  EXPECT_TRUE(notice->truncated);
  EXPECT_TRUE(notice->ids.empty());

  EXPECT_FALSE(notice->reload);

  notice = ChangeNotice::parse(R"({"t":"a.b","reload":true})");
  ASSERT_TRUE(notice.has_value());
  EXPECT_TRUE(notice->reload);
  EXPECT_FALSE(notice->truncated);
  EXPECT_TRUE(notice->ids.empty());

  notice = ChangeNotice::parse(R"({"t":"a.b","ids":[]})");
  ASSERT_TRUE(notice.has_value());
  EXPECT_FALSE(notice->truncated);

  notice = ChangeNotice::parse(R"({"t":"a.b","ids":["caf\u00e9","a\"b"]})");
  ASSERT_TRUE(notice.has_value());
  EXPECT_EQ(notice->ids[0], "caf\xC3\xA9");
  EXPECT_EQ(notice->ids[1], "a\"b");
}

TEST(ChangeNotice, RefusesEverythingElse) {
  for (const char* bad : {"",
                          " ",
                          "x",
                          "7",
                          "null",
                          "true",
                          "[]",
                          "{}",
                          "\"public.api_keys\"",
                          R"(["t"])",
                          R"({"ids":["1"]})",
                          R"({"all":true})",
                          R"({"t":"a.b"})",
                          R"({"t":7,"ids":["1"]})",
                          R"({"t":null,"all":true})",
                          R"({"t":["a.b"],"all":true})",
                          R"({"t":"a.b","ids":"1"})",
                          R"({"t":"a.b","ids":{"0":"1"}})",
                          R"({"t":"a.b","ids":[1]})",
                          R"({"t":"a.b","ids":["1",null]})",
                          R"({"t":"a.b","ids":[["1"]]})",
                          R"({"t":"a.b","all":false})",
                          R"({"t":"a.b","all":1})",
                          R"({"t":"a.b","all":"true"})",
                          R"({"t":"a.b","all":null})",
                          R"({"t":"a.b","reload":false})",
                          R"({"t":"a.b","reload":"true"})",
                          R"({"t":"a.b","ids":null})",
                          R"({"T":"a.b","all":true})",
                          R"({"t":"a.b","all":true} x)",
                          "{\"t\":\"\xFF\",\"all\":true}"}) {
    EXPECT_FALSE(ChangeNotice::parse(bad).has_value()) << bad;
  }
}

TEST(ChangeNotice, RefusesAPayloadCutAnywhere) {
  const std::string whole = R"({"t":"public.api_keys","ids":["1","22"]})";
  for (std::size_t size = 0; size < whole.size(); ++size) {
    const test::Exact cut(test::as_bytes(std::string_view(whole).substr(0, size)));
    EXPECT_FALSE(ChangeNotice::parse(
                     std::string_view(reinterpret_cast<const char*>(cut.bytes().data()), size))
                     .has_value())
        << size;
  }
}

// The trigger's measure: octet_length(to_json(id)::text) <= 1000.
TEST(ChangeNotice, NamesNoIdThatIsTooLongForIt) {
  EXPECT_TRUE(is_notified_id(""));
  EXPECT_TRUE(is_notified_id(std::string(998, 'x')));
  EXPECT_FALSE(is_notified_id(std::string(999, 'x')));
  for (const char* two : {"\"", "\\", "\n", "\r", "\t", "\b", "\f"}) {
    EXPECT_TRUE(is_notified_id(std::string(499, *two)));
    EXPECT_FALSE(is_notified_id(std::string(500, *two)));
  }
  for (const char* six : {"\x01", "\x1F", "\v"}) {
    EXPECT_TRUE(is_notified_id(std::string(166, *six)));
    EXPECT_FALSE(is_notified_id(std::string(167, *six)));
  }
  EXPECT_TRUE(is_notified_id(std::string(998, '\x7F')));
  EXPECT_TRUE(is_notified_id(std::string(998, '\xC3')));
  EXPECT_FALSE(is_notified_id(std::string(8'000, 'x')));
}

TEST(ChangeNotice, SurvivesWhatIsHuge) {
  EXPECT_FALSE(ChangeNotice::parse(std::string(1'000'000, '[')).has_value());
  EXPECT_FALSE(ChangeNotice::parse(R"({"t":)" + std::string(500'000, '{')).has_value());
  std::string nested =
      R"({"t":"a.b","all":true,"x":)" + std::string(100'000, '[') + std::string(100'000, ']') + "}";
  EXPECT_TRUE(ChangeNotice::parse(nested).has_value());
  std::string many = R"({"t":"a.b","ids":["0")";
  for (int i = 1; i < 100'000; ++i) many += ",\"" + std::to_string(i) + "\"";
  EXPECT_EQ(ChangeNotice::parse(many + "]}")->ids.size(), 100'000U);
}

// ---- definitions compared with the catalogue

SourceConfig source_of(const char* preset_name) {
  SourceConfig source = *preset(preset_name);
  source.name = preset_name;
  return source;
}

TEST(TriggerDefinition, ChangesWithWhatTheTriggersDo) {
  std::set<std::string> seen;
  const auto is_new = [&](const SourceConfig& source) {
    const TriggerDefinition made = trigger_definition(source, "latchkey_update");
    return seen.insert(made.function + made.source).second;
  };
  for (const std::string& name : preset_names()) EXPECT_TRUE(is_new(source_of(name.c_str())));
  SourceConfig source = source_of("api_keys");
  EXPECT_FALSE(is_new(source)) << "the same in each process";
  source.columns[Role::kLastUsedAt] = "last_used_at";
  EXPECT_FALSE(is_new(source)) << "what we write ourselves is no change";
  source.columns[Role::kTenant] = "org_id";
  EXPECT_TRUE(is_new(source));
  source.columns.erase(Role::kTenant);
  EXPECT_TRUE(is_new(source));
  source.columns[Role::kMetadata] = "data";
  EXPECT_TRUE(is_new(source));
  source.columns[Role::kId] = "uuid";
  EXPECT_TRUE(is_new(source));
  source.table.table = "api_keys_2";
  EXPECT_TRUE(is_new(source));
  source.table.schema = "other";
  EXPECT_TRUE(is_new(source));
}

TEST(TriggerDefinition, DoesNotChangeWithAnythingElse) {
  const SourceConfig source = source_of("api_keys");
  SourceConfig other = source;
  other.name = "renamed";
  other.database = "elsewhere";
  other.scheme = Scheme::kSha256;
  other.encoding = Encoding::kHex;
  other.time_zone = "Asia/Tokyo";
  other.peppers = "/elsewhere";
  other.status_active = {"on"};
  for (const std::string& name : trigger_names()) {
    EXPECT_EQ(trigger_definition(other, name), trigger_definition(source, name));
    EXPECT_THAT(install_sql(source), HasSubstr(trigger_definition(source, name).source));
  }
}

// ---- the DDL

TEST(TriggerSql, InstallsEachTriggerForAlwaysInOneTransaction) {
  const SourceConfig source = source_of("api_keys");
  const std::string sql = install_sql(source);
  EXPECT_EQ(trigger_names().size(), 4U);
  for (const std::string& name : trigger_names()) {
    EXPECT_THAT(sql, AllOf(HasSubstr("CREATE TRIGGER " + name + " AFTER "),
                           HasSubstr("ENABLE ALWAYS TRIGGER " + name + ";")));
    EXPECT_THAT(uninstall_sql(source),
                HasSubstr("DROP TRIGGER IF EXISTS " + name + " ON \"public\".\"api_keys\";"));
  }
  EXPECT_THAT(sql, AllOf(HasSubstr("AFTER TRUNCATE ON"), HasSubstr("FOR EACH STATEMENT"),
                         HasSubstr("SET search_path = pg_catalog, pg_temp"),
                         Not(HasSubstr("FOR EACH ROW")), Not(HasSubstr("SECURITY DEFINER"))));
  for (const std::string& text : {sql, uninstall_sql(source), grant_sql(source, "latchkey")}) {
    EXPECT_THAT(text, HasSubstr("\nBEGIN;\nSET LOCAL search_path = pg_catalog, pg_temp;\n"));
    EXPECT_TRUE(text.ends_with("COMMIT;\n"));
  }
}

TEST(TriggerSql, ComparesMappedColumnsOnlyAndSendsNothingButIds) {
  SourceConfig source = source_of("api_keys");
  const std::string sql = install_sql(source);
  EXPECT_THAT(sql, AllOf(HasSubstr("o.\"status\""), HasSubstr("n.\"status\""),
                         Not(HasSubstr("last_used_at"))));
  std::size_t key_uses = 0;
  for (auto at = sql.find("\"token_hash\""); at != sql.npos;
       at = sql.find("\"token_hash\"", at + 1)) {
    ++key_uses;
  }
  EXPECT_EQ(key_uses, 4U) << "in the comparison of old and new, nowhere else";
}

TEST(TriggerSql, GrantsTheMappedColumnsAndNothingElse) {
  SourceConfig source = source_of("external_credentials");
  source.columns[Role::kTenant] = "copper_id";  // mapped twice, granted once
  const std::string sql = grant_sql(source, "latchkey");
  EXPECT_THAT(sql, AllOf(HasSubstr("GRANT SELECT (\"id\", \"api_key\", \"copper_id\","
                                   " \"deleted_at\") ON \"public\".\"external_credentials\""
                                   " TO \"latchkey\";"),
                         HasSubstr("GRANT USAGE ON SCHEMA \"public\""), HasSubstr("NOBYPASSRLS"),
                         HasSubstr("FOR SELECT TO \"latchkey\"\n      USING (true);"),
                         Not(HasSubstr("GRANT ALL")), Not(HasSubstr("UPDATE ")),
                         Not(HasSubstr("PASSWORD '"))));
}

TEST(TriggerSql, GrantsToWriteTheLastUseWhereItIsMapped) {
  SourceConfig source = source_of("external_credentials");
  source.columns[Role::kLastUsedAt] = "used \"at\"";
  const std::string sql = grant_sql(source, "latchkey");
  const std::string update =
      "GRANT UPDATE (\"used \"\"at\"\"\") ON \"public\".\"external_credentials\" TO \"latchkey\";";
  ASSERT_THAT(sql, AllOf(HasSubstr(update), HasSubstr("\"deleted_at\", \"used \"\"at\"\"\") ON")));
  EXPECT_THAT(sql, HasSubstr("FOR UPDATE TO \"latchkey\"\n      USING (true) WITH CHECK (true)"));
  EXPECT_EQ(sql.find("GRANT UPDATE"), sql.rfind("GRANT UPDATE"));
}

// Removes quoted identifiers, literals and comments from SQL, as PostgreSQL parses it. The text
// inside of dollar quotes is SQL too, and treated in the same way.
std::string bare(const std::string& sql) {
  std::string rest;
  for (std::size_t i = 0; i < sql.size(); ++i) {
    if (sql.compare(i, 2, "--") == 0) {
      i = std::min(sql.find('\n', i), sql.size());
      rest += '\n';
    } else if (sql[i] == '"' || sql[i] == '\'') {
      const char mark = sql[i];
      const bool escapes = mark == '\'' && !rest.empty() && rest.back() == 'E';
      for (++i; i < sql.size(); ++i) {
        if (escapes && sql[i] == '\\') {
          ++i;
        } else if (sql[i] == mark) {
          if (i + 1 == sql.size() || sql[i + 1] != mark) break;
          ++i;
        }
      }
      rest += mark;
    } else {
      rest += sql[i];
    }
  }
  return rest;
}

TEST(TriggerSql, QuotesHostileNames) {
  const SourceConfig tame = source_of("api_keys");
  for (const char* hostile : {R"(x"; EVIL "y)", R"(x'; EVIL 'y)", R"(x\'; EVIL --)", "x -- EVIL",
                              "x\n; EVIL", "$$ EVIL", "/* EVIL", R"(x'')", R"(x"")", R"(\)"}) {
    SCOPED_TRACE(hostile);
    SourceConfig source = tame;
    source.name = hostile;
    source.table = {hostile, hostile};
    for (auto& [role, column] : source.columns) column = std::string(hostile) + role_name(role);
    EXPECT_EQ(bare(uninstall_sql(source)), bare(uninstall_sql(tame)));
    // A literal with a backslash becomes E'...': there is no other difference.
    const auto without_e = [](std::string text) {
      for (std::size_t at; (at = text.find("E'")) != text.npos;) text.erase(at, 1);
      return text;
    };
    EXPECT_EQ(without_e(bare(install_sql(source))), without_e(bare(install_sql(tame))));
    EXPECT_EQ(without_e(bare(grant_sql(source, hostile))),
              without_e(bare(grant_sql(tame, "latchkey"))));
  }
}

// PostgreSQL cuts identifiers at 63 bytes: two long names with the same beginning would share a
// function, and installing the second would break the first.
TEST(TriggerSql, NamesItsFunctionWithoutNeedOfCutting) {
  const auto function_of = [](const std::string& table) {
    SourceConfig source = source_of("api_keys");
    source.table = {std::string(40, 's'), std::string(40, 't') + table};
    const std::string sql = install_sql(source), start = "FUNCTION latchkey.\"";
    const auto from = sql.find(start) + start.size();
    return sql.substr(from, sql.find('"', from) - from);
  };
  EXPECT_LE(function_of("1").size(), 63U);
  EXPECT_NE(function_of("1").substr(0, 63), function_of("2").substr(0, 63));
}

}  // namespace
}  // namespace latchkey
