// What can be said against a source: every kind of finding, under a number of its own.
//
// Numbers are for ever: alerts are silenced by them and runbooks name them. A kind that goes leaves
// its number unused, a new one takes the next of its hundred. docs/lint.md says of each what causes
// it, what follows, what to do and how to find the rows; finding_test.cpp holds the two together.
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

// Errors keep latchkeyd from starting or a source from accepting anybody; `--check` fails for them.
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
// All of them, in the order of their numbers, which is that of the enumeration.
[[nodiscard]] std::span<const LintRule, kLints> lint_rules();
[[nodiscard]] const LintRule& rule_of(Lint lint);
// Does it keep us from hearing of changes, and from nothing else?
[[nodiscard]] bool is_about_triggers(Lint lint);

// One thing found. The text is for operators and complete by itself; it never holds a key, a digest
// or any other content of a row but the name of a pepper version.
struct LintFinding {
  Lint lint = Lint::kDatabase;
  std::uint64_t count = 0;  // of rows or keys; 0: it is not about rows
  std::string about;        // what tells it from others of its kind: a column, another source
  std::string text;

  [[nodiscard]] const char* number() const { return rule_of(lint).number; }
  [[nodiscard]] Severity severity() const { return rule_of(lint).severity; }
  [[nodiscard]] const char* name() const { return rule_of(lint).name; }
  bool operator==(const LintFinding&) const = default;
};

// What somebody who was told `before` has to be told of `now`, so that a log does not repeat itself
// with every load: errors and warnings that are new or say something else, and notes that are new
// or whose count has about doubled or halved.
[[nodiscard]] std::vector<LintFinding> news(const std::vector<LintFinding>& before,
                                            const std::vector<LintFinding>& now);
// And what is no longer so.
[[nodiscard]] std::vector<LintFinding> gone(const std::vector<LintFinding>& before,
                                            const std::vector<LintFinding>& now);

}  // namespace latchkey
