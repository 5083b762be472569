// Numbers of findings: unique, permanent, documented; and the choice of findings to log.
#include "loader/finding.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <set>
#include <sstream>

#include "loader/postgres/row.h"

namespace latchkey {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

// The sections of docs/lint.md: "## L101 error: table_missing", and the text below it.
std::map<std::string, std::string> documented() {
  std::ifstream file(LATCHKEY_DOCS "/lint.md");
  EXPECT_TRUE(file.is_open());
  std::map<std::string, std::string> sections;
  std::string* section = nullptr;
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with("## L")) {
      EXPECT_FALSE(sections.contains(line.substr(3))) << line;
      section = &sections[line.substr(3)];
    } else if (section != nullptr) {
      *section += line + "\n";
    }
  }
  return sections;
}

TEST(LintRules, StandUnderTheirOwnNumbersInOrder) {
  std::set<std::string> names;
  std::string last;
  for (std::size_t i = 0; i < kLints; ++i) {
    const LintRule& rule = lint_rules()[i];
    EXPECT_EQ(static_cast<std::size_t>(rule.lint), i) << rule.number;
    EXPECT_EQ(&rule_of(rule.lint), &rule);
    EXPECT_EQ(std::string(rule.number).size(), 4U);
    EXPECT_LT(last, rule.number);
    EXPECT_TRUE(names.insert(rule.name).second) << rule.name;
    last = rule.number;
  }
}

// Alerts and runbooks use the numbers. Add to this list; never change an entry.
TEST(LintRules, NeverChangeTheirNumbers) {
  const std::vector<std::string> known = {
      "L001 database",
      "L002 superuser_refused",
      "L003 side_rights",
      "L101 table_missing",
      "L102 not_a_table",
      "L103 schema_unusable",
      "L104 column_missing",
      "L105 column_unreadable",
      "L106 id_not_unique",
      "L107 key_type",
      "L108 flag_type",
      "L109 time_type",
      "L110 rows_hidden",
      "L111 trigger_missing",
      "L112 trigger_outdated",
      "L113 trigger_disabled",
      "L114 id_encoding",
      "L115 query_refused",
      "L116 column_unwritable",
      "L117 column_type",
      "L118 foreign_code",
      "L119 foreign_owner",
      "L201 no_key",
      "L202 bad_digest",
      "L203 unknown_pepper_version",
      "L204 unknown_status",
      "L205 bad_scopes",
      "L206 unusable_scope",
      "L207 unreadable_time",
      "L208 unreadable_jwt",
      "L209 claims_too_long",
      "L210 metadata_too_long",
      "L211 no_usable_row",
      "L212 unreadable_text",
      "L213 all_refused",
      "L214 use_time_unit",
      "L301 key_in_several_rows",
      "L302 key_in_several_sources",
      "L303 short_key",
      "L304 expired_but_active",
      "L401 table_empty",
      "L402 key_not_unique",
      "L403 superuser",
      "L404 partitioned",
      "L405 partition",
      "L406 replicated",
      "L407 bypasses_rls",
      "L408 prepared_transactions",
  };
  std::vector<std::string> here;
  for (const LintRule& rule : lint_rules()) {
    here.push_back(std::string(rule.number) + " " + rule.name);
  }
  EXPECT_EQ(here, known);
}

TEST(LintRules, AreAllDocumentedAndNoOthers) {
  auto sections = documented();
  for (const LintRule& rule : lint_rules()) {
    const std::string title =
        std::string(rule.number) + " " + severity_name(rule.severity) + ": " + rule.name;
    const auto section = sections.find(title);
    ASSERT_NE(section, sections.end()) << title;
    for (const char* part : {"**Cause.**", "**Consequence.**", "**Remedy.**"}) {
      EXPECT_NE(section->second.find(part), std::string::npos) << title << " lacks " << part;
    }
    // A section about single rows has a query that finds them.
    const bool about_rows = title[1] == '2' || title[1] == '3';
    if (about_rows) {
      EXPECT_NE(section->second.find("SELECT "), std::string::npos) << title;
    }
    sections.erase(section);
  }
  EXPECT_TRUE(sections.empty()) << sections.begin()->first << " is no finding of the code's";
}

TEST(LintRules, NameEveryOddity) {
  std::set<Lint> lints;
  for (std::size_t i = 0; i < kOddities; ++i) {
    const auto oddity = static_cast<Oddity>(i);
    EXPECT_TRUE(lints.insert(lint_of(oddity)).second) << i;
    EXPECT_STREQ(rule_of(lint_of(oddity)).name, oddity_name(oddity));
    EXPECT_EQ(rule_of(lint_of(oddity)).severity,
              oddity == Oddity::kNoKey ? Severity::kNote : Severity::kWarning);
  }
}

// ---- news

Finding finding(Lint lint, std::uint64_t count, const std::string& about = "") {
  return {.lint = lint, .count = count, .about = about, .text = std::to_string(count) + " rows"};
}

TEST(LintNews, AreWhatIsNewOrSaysSomethingElse) {
  const auto bad3 = finding(Lint::kBadDigest, 3), bad4 = finding(Lint::kBadDigest, 4);
  const auto no_key = finding(Lint::kBadScopes, 3);
  EXPECT_THAT(news({}, {}), IsEmpty());
  EXPECT_THAT(news({}, {no_key, bad3}), ElementsAre(no_key, bad3));
  EXPECT_THAT(news({no_key, bad3}, {no_key, bad3}), IsEmpty());
  EXPECT_THAT(news({no_key, bad3}, {no_key, bad4}), ElementsAre(bad4));
  EXPECT_THAT(news({bad3}, {no_key}), ElementsAre(no_key));
  EXPECT_THAT(news({bad3}, {}), IsEmpty());
  auto other_text = bad3;
  other_text.text = "3 rows of another version";
  EXPECT_THAT(news({bad3}, {other_text}), ElementsAre(other_text));
}

TEST(LintNews, TellNotesApartByTheirMagnitudeOnly) {
  const auto expired = [](std::uint64_t count) { return finding(Lint::kExpiredButActive, count); };
  EXPECT_THAT(news({expired(1000)}, {expired(1020)}), IsEmpty());
  EXPECT_THAT(news({expired(1020)}, {expired(600)}), IsEmpty());
  EXPECT_THAT(news({expired(1000)}, {expired(2000)}), ElementsAre(expired(2000)));
  EXPECT_THAT(news({expired(1000)}, {expired(400)}), ElementsAre(expired(400)));
  EXPECT_THAT(news({expired(1)}, {expired(2)}), ElementsAre(expired(2)));
}

TEST(LintNews, TellFindingsOfOneKindApart) {
  const auto a = finding(Lint::kKeyInSeveralSources, 5, "a");
  const auto b = finding(Lint::kKeyInSeveralSources, 5, "b");
  EXPECT_THAT(news({a}, {a, b}), ElementsAre(b));
  EXPECT_THAT(news({a, b}, {b, a}), IsEmpty());
  EXPECT_THAT(gone({a, b}, {b}), ElementsAre(a));
}

TEST(LintNews, SayWhatIsNoLongerSo) {
  const auto bad3 = finding(Lint::kBadDigest, 3), bad4 = finding(Lint::kBadDigest, 4);
  EXPECT_THAT(gone({bad3}, {bad4}), IsEmpty());
  EXPECT_THAT(gone({bad3}, {finding(Lint::kNoKey, 3)}), ElementsAre(bad3));
  EXPECT_THAT(gone({}, {bad3}), IsEmpty());
}

}  // namespace
}  // namespace latchkey
