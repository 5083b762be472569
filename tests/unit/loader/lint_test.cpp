// The findings of a load.
#include "loader/lint.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <iterator>
#include <string>

#include "loader/postgres/catalogue_lint.h"
#include "loader/postgres/row.h"
#include "tests/unit/support/helpers.h"

namespace latchkey {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;

constexpr std::int64_t kNow = 1'700'000'000'000'000;
constexpr std::int64_t kEpochUs = 946'684'800'000'000;  // 2000-01-01 in microseconds since 1970

std::string binary_time(std::int64_t unix_us) {
  const auto bits = static_cast<std::uint64_t>(unix_us - kEpochUs);
  std::string bytes;
  for (int shift = 56; shift >= 0; shift -= 8) bytes += static_cast<char>((bits >> shift) & 0xFF);
  return bytes;
}

class Linting : public testing::Test {
 protected:
  Linting() {
    source_.name = "s";
    source_.table = {"public", "keys"};
    source_.columns = {{Role::kId, "id"}, {Role::kKey, "key"}};
    facts_.unique = {"id", "key"};
    row_[kFieldId] = "1";
    row_[kFieldKey] = digest_;
    row_[kFieldState] = "a";
  }

  void load() {
    RowReader reader(source_, facts_, scopes_, {"v1"});
    const RowMeaning meaning = reader.read(row_);
    lint_.count(meaning);
    if (meaning.facts) ++usable_;
  }
  void load_version(const std::optional<std::string_view>& version, int times = 1) {
    source_.scheme = Scheme::kHmac;
    source_.columns[Role::kKeyVersion] = "version";
    row_[kFieldKeyVersion] = version;
    for (int i = 0; i < times; ++i) load();
  }
  std::vector<Finding> findings() {
    auto found = lint_.findings(usable_, shared_);
    std::ranges::move(catalogue_findings(source_, facts_), std::back_inserter(found));
    std::ranges::stable_sort(found, {}, &Finding::lint);
    return found;
  }
  std::vector<std::string> numbers() {
    std::vector<std::string> list;
    for (const Finding& finding : findings()) list.emplace_back(finding.number());
    return list;
  }
  Finding only() {
    const auto found = findings();
    EXPECT_EQ(found.size(), 1U);
    return found.empty() ? Finding{} : found.front();
  }

  const std::string digest_ = std::string(32, 'd');
  ScopeSets scopes_;
  SourceConfig source_;
  TableFacts facts_;
  RowView row_;
  LoadLint lint_{source_, kNow};
  std::size_t usable_ = 0;
  std::size_t shared_ = 0;
};

TEST_F(Linting, SaysNothingOfWhatIsInOrder) {
  load();
  EXPECT_THAT(findings(), IsEmpty());
}

TEST_F(Linting, TakesOverWhatIsOddAboutRows) {
  load();
  row_[kFieldState] = "u";
  load();
  load();
  EXPECT_EQ(lint_.oddities()[static_cast<std::size_t>(Oddity::kUnknownStatus)], 2U);
  const Finding finding = only();
  EXPECT_STREQ(finding.number(), "L204");
  EXPECT_EQ(finding.count, 2U);
  EXPECT_THAT(finding.text, AllOf(HasSubstr("2 rows: unknown_status: "),
                                  HasSubstr(oddity_sentence(Oddity::kUnknownStatus))));
}

TEST_F(Linting, SpeaksInTheOrderOfTheNumbers) {
  row_[kFieldState] = "u";
  load();
  row_[kFieldState] = "a";
  row_[kFieldShort] = "s";
  load();
  row_[kFieldKey] = "no digest";
  load();
  shared_ = 1;
  facts_.unique.clear();
  facts_.bypasses_rls = true;
  facts_.superuser = facts_.has_parts = facts_.is_part = facts_.subscribed = true;
  EXPECT_THAT(numbers(), ElementsAre("L202", "L204", "L301", "L303", "L402", "L403", "L404", "L405",
                                     "L406", "L407"));
}

// ---- pepper versions

TEST_F(Linting, NamesPepperVersionsThatAreNotAtHand) {
  load_version("v1", 5);
  load_version("v0");
  load_version("v9", 3);
  load_version(std::nullopt, 2);
  const Finding finding = only();
  EXPECT_STREQ(finding.number(), "L203");
  EXPECT_EQ(finding.count, 6U);
  EXPECT_THAT(finding.text, AllOf(HasSubstr("6 rows: unknown_pepper_version: "),
                                  HasSubstr("The versions: \"v9\" (3), NULL (2), \"v0\" (1).")));
}

TEST_F(Linting, ShowsOfAVersionOnlyWhatCanBePrinted) {
  load_version("a\x1B[31m\n\"b\xC3\xA9");
  EXPECT_THAT(only().text, HasSubstr("\"a?[31m??b??\" (1)"));
  const std::string longest(200, 'x');
  load_version(longest);
  EXPECT_THAT(only().text, AllOf(HasSubstr("\"" + std::string(64, 'x') + "\" (1)"),
                                 Not(HasSubstr(std::string(65, 'x')))));
}

// A column with many different values is probably not the version, and may hold secrets.
TEST_F(Linting, ShowsNoneOfManyDifferentVersions) {
  for (int i = 0; i < 8; ++i) load_version("sk_secret_" + std::to_string(i));
  EXPECT_THAT(only().text, HasSubstr("sk_secret_7"));
  load_version("sk_secret_8");
  EXPECT_THAT(only().text, AllOf(Not(HasSubstr("sk_secret")), HasSubstr("`key_version`"),
                                 HasSubstr("\"version\"")));
  for (int i = 0; i < 100; ++i) load_version("sk_secret_" + std::to_string(i));
  EXPECT_THAT(only().text, AllOf(HasSubstr("109 rows"), Not(HasSubstr("sk_secret"))));
}

TEST_F(Linting, ShowsNoVersionThatIsTheKeyItself) {
  load_version("v0");
  source_.columns[Role::kKeyVersion] = "key";
  EXPECT_THAT(only().text, AllOf(Not(HasSubstr("v0")), HasSubstr("`key_version`")));
}

// ---- keys

TEST_F(Linting, CountsShortKeysThatWouldBeAccepted) {
  row_[kFieldShort] = "s";
  for (const char* state : {"a", "r", "d", "x", "a"}) {
    row_[kFieldState] = state;
    load();
  }
  const Finding finding = only();
  EXPECT_STREQ(finding.number(), "L303");
  EXPECT_EQ(finding.count, 2U);
  EXPECT_THAT(finding.text, AllOf(HasSubstr("20 bytes"), HasSubstr("latchkey mint")));
}

TEST_F(Linting, CountsActiveRowsThatHaveExpired) {
  for (const std::int64_t expiry : {kNow - 1, kNow, kNow + 1}) {
    const std::string time = binary_time(expiry);
    row_[kFieldExpires] = time;
    for (const char* state : {"a", "r"}) {
      row_[kFieldState] = state;
      load();
    }
  }
  row_[kFieldExpires] = std::nullopt;
  row_[kFieldState] = "a";
  load();
  const Finding finding = only();
  EXPECT_STREQ(finding.number(), "L304");
  EXPECT_EQ(finding.severity(), Severity::kNote);
  EXPECT_EQ(finding.count, 2U) << "the instant itself is too late, as in a verdict";
}

TEST_F(Linting, CountsAnExpiredShortKeyOnce) {
  const std::string time = binary_time(kNow - 1);
  row_[kFieldExpires] = time;
  row_[kFieldShort] = "s";
  load();
  EXPECT_THAT(numbers(), ElementsAre("L213", "L304"));
}

TEST_F(Linting, SaysWhenEveryRowRefuses) {
  for (const char* state : {"r", "d", "x", "u"}) {
    row_[kFieldState] = state;
    load();
  }
  EXPECT_THAT(numbers(), ElementsAre("L204", "L213"));
  row_[kFieldState] = "a";
  load();
  EXPECT_THAT(numbers(), ElementsAre("L204"));
}

TEST_F(Linting, SaysHowManyKeysStandInSeveralRows) {
  load();
  shared_ = 3;
  EXPECT_EQ(only().count, 3U);
  EXPECT_THAT(only().text, HasSubstr("3 keys stand in several rows each"));
}

TEST_F(Linting, SaysForEachOtherSourceHowManyKeysItShares) {
  Quiescence quiescence;
  const KeySet a("a", quiescence), b("b", quiescence), c("c", quiescence);
  const auto found = overlap_findings({{&a, 2}, {&b, 0}, {&c, 1}});
  ASSERT_EQ(found.size(), 2U);
  EXPECT_STREQ(found[0].number(), "L302");
  EXPECT_EQ(found[0].count, 2U);
  EXPECT_THAT(found[0].text, HasSubstr("2 rows hold keys that source \"a\" holds as well"));
  EXPECT_EQ(found[1].about, "c");
}

// ---- the table

TEST_F(Linting, SaysThatNoRowCanBeUsed) {
  row_[kFieldKey] = "no digest";
  load();
  const auto found = findings();
  ASSERT_EQ(found.size(), 2U);
  EXPECT_STREQ(found[1].number(), "L211");
  EXPECT_EQ(found[1].severity(), Severity::kError);
  EXPECT_THAT(found[1].text, AllOf(HasSubstr("`encoding`"), HasSubstr("[[source]] \"s\"")));
}

TEST_F(Linting, SaysThatTheTableIsEmpty) {
  EXPECT_STREQ(only().number(), "L401");
  EXPECT_THAT(only().text, AllOf(HasSubstr("public.keys"), HasSubstr("`conninfo`")));
}

TEST_F(Linting, SaysThatNothingKeepsKeysUnique) {
  load();
  facts_.unique = {"id"};
  EXPECT_STREQ(only().number(), "L402");
  EXPECT_THAT(only().text,
              HasSubstr(R"(CREATE UNIQUE INDEX CONCURRENTLY ON "public"."keys" ("key"))"));
  source_.scheme = Scheme::kJwt;
  EXPECT_THAT(findings(), IsEmpty()) << "no index takes whole tokens";
}

TEST_F(Linting, SaysWhatTheCatalogueGivesCauseFor) {
  load();
  facts_.superuser = true;
  EXPECT_THAT(only().text, HasSubstr("latchkey sql grant --source s"));
  facts_.superuser = false;
  facts_.bypasses_rls = true;
  EXPECT_THAT(only().text, HasSubstr("has BYPASSRLS"));
  facts_.bypasses_rls = false;
  facts_.prepared_transactions = true;
  EXPECT_EQ(only().severity(), Severity::kNote);
  EXPECT_THAT(only().text, HasSubstr("changes public.keys cannot be prepared"));
  facts_.prepared_transactions = false;
  facts_.has_parts = true;
  EXPECT_THAT(only().text, HasSubstr("through public.keys"));
  facts_.has_parts = false;
  facts_.is_part = true;
  EXPECT_EQ(only().severity(), Severity::kWarning);
  EXPECT_THAT(only().text, HasSubstr("Set `table`"));
  facts_.is_part = false;
  facts_.subscribed = true;
  EXPECT_EQ(only().severity(), Severity::kWarning);
  EXPECT_THAT(only().text, AllOf(HasSubstr("publisher"), HasSubstr("`audit`")));
}

}  // namespace
}  // namespace latchkey
