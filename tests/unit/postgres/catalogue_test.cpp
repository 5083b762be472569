// The query of the catalogue, and the facts read from its answer.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "loader/postgres/catalogue.h"
#include "loader/postgres/queries.h"
#include "loader/postgres/version.h"
#include "tests/unit/support/queries_fixture.h"

namespace latchkey {
namespace {

using test::Queries;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::UnorderedElementsAre;

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

}  // namespace
}  // namespace latchkey
