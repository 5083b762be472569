// Answers of the server about itself, as libpq holds them: read in full, or refused with an error.
#include "loader/postgres/answers.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <libpq-fe.h>

#include <optional>
#include <string>
#include <vector>

#include "loader/postgres/connection.h"

namespace latchkey {
namespace {

using testing::HasSubstr;

using Values = std::vector<std::optional<std::string>>;

// A result of one row.
PgRows row_of(const Values& values) {
  PGresult* result = PQmakeEmptyPGresult(nullptr, PGRES_TUPLES_OK);
  std::vector<PGresAttDesc> columns(values.size());
  std::string name = "c";
  for (PGresAttDesc& column : columns) column.name = name.data();
  EXPECT_NE(PQsetResultAttrs(result, static_cast<int>(columns.size()), columns.data()), 0);
  for (std::size_t i = 0; i < values.size(); ++i) {
    std::string value = values[i].value_or("");
    EXPECT_NE(PQsetvalue(result, 0, static_cast<int>(i), values[i] ? value.data() : nullptr,
                         values[i] ? static_cast<int>(value.size()) : -1),
              0);
  }
  return {result, "a test"};
}
template <typename Read>
std::string error_of(Read read) {
  try {
    (void)read();
  } catch (const PgError& error) {
    return error.what();
  }
  return "(no error)";
}

TEST(NumberOrFail, TakesWholeNumbersOnly) {
  const std::pair<const char*, double> good[] = {
      {"0", 0}, {"1", 1}, {"0.5", 0.5}, {"0.000095367", 0.000095367}, {"1e-3", 0.001}};
  for (const auto& [text, number] : good) EXPECT_EQ(number_or_fail(text), number) << text;
  for (const char* bad : {"", " ", " 0", "0 ", "0\n", "+1", "0x1", "1,5", "0.5.1", "half", "1e999",
                          "--1", "0.5%", "NULL", "nan", "inf", "-inf", "1.5", "-0.1"}) {
    EXPECT_THROW((void)number_or_fail(bad), PgError) << bad;
  }
}

TEST(ReadLsn, TakesPositionsAndNull) {
  EXPECT_EQ(read_lsn(row_of({"16/B374D848"}), 0), Lsn{0x16B374D848});
  EXPECT_EQ(read_lsn(row_of({"x", "0/1"}), 1), Lsn{1});
  EXPECT_EQ(read_lsn(row_of({"FFFFFFFF/FFFFFFFF"}), 0), ~Lsn{0});
  EXPECT_EQ(read_lsn(row_of({std::nullopt}), 0), Lsn{0}) << "the role may not see it";
  for (const char* bad : {"", "16", "/", "16/", "/1", "16/B374D848 ", " 16/1", "1/2/3", "g/1",
                          "100000000/0", "-1/0"}) {
    EXPECT_THROW((void)read_lsn(row_of({bad}), 0), PgError) << bad;
  }
  EXPECT_THAT(error_of([] { return read_lsn(row_of({"0/1"}), 1); }), HasSubstr("no column 1"));
}

TEST(ReadIdentity, TakesAllColumns) {
  const ServerIdentity identity = read_identity(
      row_of({"7300000000000000000", "0000001F", "2/3", "2/1", "2026-01-02 03:04:05+00", "1/FF"}));
  EXPECT_EQ(identity.system, "7300000000000000000");
  EXPECT_EQ(identity.timeline, 0x1FU) << "timelines are hexadecimal";
  EXPECT_EQ(identity.position.inserted, Lsn{0x200000003});
  EXPECT_EQ(identity.position.flushed, Lsn{0x200000001});
  EXPECT_EQ(identity.started, "2026-01-02 03:04:05+00");
  EXPECT_EQ(identity.checkpoint, Lsn{0x1000000FF});
}

TEST(ReadIdentity, TakesNullForAnythingThatTheRoleMayNotSee) {
  const ServerIdentity identity = read_identity(row_of(Values(6)));
  EXPECT_EQ(identity.system, "");
  EXPECT_EQ(identity.timeline, 0U);
  EXPECT_EQ(identity.position.inserted, 0U);
  EXPECT_EQ(identity.position.flushed, 0U);
  EXPECT_EQ(identity.started, "");
  EXPECT_EQ(identity.checkpoint, 0U);
}

TEST(ReadIdentity, RefusesAnyOtherAnswer) {
  const Values good = {"73", "1", "2/3", "2/1", "now", "1/FF"};
  const struct {
    std::size_t column;
    const char* value;
  } cases[] = {{0, ""},    {0, "-1"},  {0, "7 3"},       {0, "73a"}, {0, "18446744073709551616"},
               {1, ""},    {1, "1g"},  {1, "100000000"}, {1, "-1"},  {2, "here"},
               {3, "2/x"}, {5, "late"}};
  for (const auto& c : cases) {
    Values bad = good;
    bad[c.column] = c.value;
    EXPECT_THROW((void)read_identity(row_of(bad)), PgError) << c.column << ": " << c.value;
  }
  EXPECT_NO_THROW((void)read_identity(row_of(good)));
  for (const std::size_t columns : {0U, 5U, 7U}) {
    EXPECT_THAT(error_of([&] { return read_identity(row_of(Values(columns))); }),
                HasSubstr("instead of 6"));
  }
}

TEST(ReadSideRights, TakesEachRightFromItsColumn) {
  for (int granted = 0; granted < kSideRights; ++granted) {
    Values values(kSideRights, "f");
    values[static_cast<std::size_t>(granted)] = "t";
    const SideRights rights = read_side_rights(row_of(values));
    const bool list[] = {rights.system, rights.position, rights.start, rights.queue,
                         rights.subscriptions};
    for (int i = 0; i < kSideRights; ++i) EXPECT_EQ(list[i], i == granted) << i;
  }
}

TEST(ReadSideRights, GrantsNothingInDoubt) {
  for (const char* other : {"", "true", "T", "1", "t "}) {
    const SideRights rights = read_side_rights(row_of(Values(kSideRights, other)));
    EXPECT_FALSE(rights.system || rights.position || rights.start || rights.queue ||
                 rights.subscriptions)
        << other;
  }
  EXPECT_THROW((void)read_side_rights(row_of(Values(kSideRights))), PgError) << "NULL";
  EXPECT_THROW((void)read_side_rights(row_of(Values(4, "t"))), PgError);
}

TEST(ReadAnswer, NamesTheQuestionOfAnAnswerThatItCannotRead) {
  EXPECT_EQ(error_of([] {
              read_answer("the question", [] { throw CatalogueError("is no JSON"); });
              return 0;
            }),
            "the server's answer to the question is no JSON");
  int calls = 0;
  read_answer("the question", [&] { ++calls; });
  EXPECT_EQ(calls, 1);
}

}  // namespace
}  // namespace latchkey
