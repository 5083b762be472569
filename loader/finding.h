// Findings about a source: each kind has its own number.
//
// Numbers are permanent: alerts are silenced by them and runbooks name them. A removed kind leaves
// its number unused, a new one takes the next number of its hundred. docs/lint.md describes the
// cause, the consequence, the remedy and the query for the rows of each; finding_test.cpp checks
// that both agree.
//
//   L0xx  the database as a whole            L3xx  keys that are served, but give cause for concern
//   L1xx  the table cannot be served         L4xx  how the table is set up
//   L2xx  rows that cannot be used as they are
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace latchkey {

// Errors keep latchkeyd from starting or a source from accepting any key; `--check` fails for them.
// Warnings: some keys are not served as their rows ask, or not as soon. Notes: good to know.
enum class Severity { kNote, kWarning, kError };
[[nodiscard]] const char* severity_name(Severity severity);

enum class Lint {
  kDatabase,
  kSuperuserRefused,
  kSideRights,
  kTableMissing,
  kNotATable,
  kSchemaUnusable,
  kColumnMissing,
  kColumnUnreadable,
  kIdNotUnique,
  kKeyType,
  kFlagType,
  kTimeType,
  kRowsHidden,
  kTriggerMissing,
  kTriggerOutdated,
  kTriggerDisabled,
  kIdEncoding,
  kQueryRefused,
  kColumnUnwritable,
  kColumnType,
  kForeignCode,
  kForeignOwner,
  kNoKey,
  kBadDigest,
  kUnknownPepper,
  kUnknownStatus,
  kBadScopes,
  kUnusableScope,
  kUnreadableTime,
  kUnreadableJwt,
  kClaimsTooLong,
  kMetadataTooLong,
  kNoUsableRow,
  kUnreadableText,
  kAllRefused,
  kUseTimeUnit,
  kKeyInSeveralRows,
  kKeyInSeveralSources,
  kShortKey,
  kExpiredButActive,
  kTableEmpty,
  kKeyNotUnique,
  kSuperuser,
  kPartitioned,
  kPartition,
  kReplicated,
  kBypassesRls,
  kPreparedTransactions,
};
constexpr std::size_t kLints = 48;

struct LintRule {
  Lint lint;
  const char* number;  // "L101"
  Severity severity;
  const char* name;  // one word, for counters and scripts
};
// All rules, sorted by number, which is the order of the enumeration.
[[nodiscard]] std::span<const LintRule, kLints> lint_rules();
[[nodiscard]] const LintRule& rule_of(Lint lint);
// True if the finding prevents notifications of changes, and nothing else.
[[nodiscard]] bool is_about_triggers(Lint lint);

// One finding. The text is for operators and complete by itself; it never holds a key, a digest or
// any other content of a row except the name of a pepper version.
struct Finding {
  Lint lint = Lint::kDatabase;
  std::uint64_t count = 0;  // of rows or keys; 0: it is not about rows
  std::string about;        // distinguishes findings of one kind: a column, another source
  std::string text;

  [[nodiscard]] const char* number() const { return rule_of(lint).number; }
  [[nodiscard]] Severity severity() const { return rule_of(lint).severity; }
  [[nodiscard]] const char* name() const { return rule_of(lint).name; }
  // "L301: text", for logs and errors.
  [[nodiscard]] std::string numbered() const { return std::string(number()) + ": " + text; }
  bool operator==(const Finding&) const = default;
};

// The findings of `now` to log after `before`, so that a log does not repeat itself with every
// load: new or changed errors and warnings, and notes that are new or whose count has about doubled
// or halved.
[[nodiscard]] std::vector<Finding> news(const std::vector<Finding>& before,
                                        const std::vector<Finding>& now);
// The findings of `before` that are gone.
[[nodiscard]] std::vector<Finding> gone(const std::vector<Finding>& before,
                                        const std::vector<Finding>& now);

}  // namespace latchkey
