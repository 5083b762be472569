#include "loader/finding.h"

#include <algorithm>
#include <array>
#include <bit>

namespace latchkey {
namespace {

constexpr Severity kNote = Severity::kNote;
constexpr Severity kWarning = Severity::kWarning;
constexpr Severity kError = Severity::kError;

constexpr std::array<LintRule, kLints> kRules = {{
    {Lint::kDatabase, "L001", kError, "database"},
    {Lint::kSuperuserRefused, "L002", kError, "superuser_refused"},
    {Lint::kSideRights, "L003", kNote, "side_rights"},

    {Lint::kTableMissing, "L101", kError, "table_missing"},
    {Lint::kNotATable, "L102", kError, "not_a_table"},
    {Lint::kSchemaUnusable, "L103", kError, "schema_unusable"},
    {Lint::kColumnMissing, "L104", kError, "column_missing"},
    {Lint::kColumnUnreadable, "L105", kError, "column_unreadable"},
    {Lint::kIdNotUnique, "L106", kError, "id_not_unique"},
    {Lint::kKeyType, "L107", kError, "key_type"},
    {Lint::kFlagType, "L108", kError, "flag_type"},
    {Lint::kTimeType, "L109", kError, "time_type"},
    {Lint::kRowsHidden, "L110", kError, "rows_hidden"},
    {Lint::kTriggerMissing, "L111", kError, "trigger_missing"},
    {Lint::kTriggerOutdated, "L112", kError, "trigger_outdated"},
    {Lint::kTriggerDisabled, "L113", kError, "trigger_disabled"},
    {Lint::kIdEncoding, "L114", kError, "id_encoding"},
    {Lint::kQueryRefused, "L115", kError, "query_refused"},
    {Lint::kColumnUnwritable, "L116", kError, "column_unwritable"},
    {Lint::kColumnType, "L117", kError, "column_type"},
    {Lint::kForeignCode, "L118", kError, "foreign_code"},
    {Lint::kForeignOwner, "L119", kError, "foreign_owner"},

    {Lint::kNoKey, "L201", kNote, "no_key"},
    {Lint::kBadDigest, "L202", kWarning, "bad_digest"},
    {Lint::kUnknownPepper, "L203", kWarning, "unknown_pepper_version"},
    {Lint::kUnknownStatus, "L204", kWarning, "unknown_status"},
    {Lint::kBadScopes, "L205", kWarning, "bad_scopes"},
    {Lint::kUnusableScope, "L206", kWarning, "unusable_scope"},
    {Lint::kUnreadableTime, "L207", kWarning, "unreadable_time"},
    {Lint::kUnreadableJwt, "L208", kWarning, "unreadable_jwt"},
    {Lint::kClaimsTooLong, "L209", kWarning, "claims_too_long"},
    {Lint::kMetadataTooLong, "L210", kWarning, "metadata_too_long"},
    {Lint::kNoUsableRow, "L211", kError, "no_usable_row"},
    {Lint::kUnreadableText, "L212", kWarning, "unreadable_text"},
    {Lint::kAllRefused, "L213", kWarning, "all_refused"},
    {Lint::kUseTimeUnit, "L214", kWarning, "use_time_unit"},

    {Lint::kKeyInSeveralRows, "L301", kWarning, "key_in_several_rows"},
    {Lint::kKeyInSeveralSources, "L302", kNote, "key_in_several_sources"},
    {Lint::kShortKey, "L303", kWarning, "short_key"},
    {Lint::kExpiredButActive, "L304", kNote, "expired_but_active"},

    {Lint::kTableEmpty, "L401", kNote, "table_empty"},
    {Lint::kKeyNotUnique, "L402", kNote, "key_not_unique"},
    {Lint::kSuperuser, "L403", kNote, "superuser"},
    {Lint::kPartitioned, "L404", kNote, "partitioned"},
    {Lint::kPartition, "L405", kWarning, "partition"},
    {Lint::kReplicated, "L406", kWarning, "replicated"},
    {Lint::kBypassesRls, "L407", kWarning, "bypasses_rls"},
    {Lint::kPreparedTransactions, "L408", kNote, "prepared_transactions"},
}};

const Finding* same_kind(const std::vector<Finding>& list, const Finding& finding) {
  const auto found = std::ranges::find_if(list, [&](const Finding& other) {
    return other.lint == finding.lint && other.about == finding.about;
  });
  return found == list.end() ? nullptr : &*found;
}

}  // namespace

const char* severity_name(Severity severity) {
  switch (severity) {
    case Severity::kNote: return "note";
    case Severity::kWarning: return "warning";
    case Severity::kError: return "error";
  }
  return "";
}

std::span<const LintRule, kLints> lint_rules() { return kRules; }

const LintRule& rule_of(Lint lint) { return kRules.at(static_cast<std::size_t>(lint)); }

bool is_about_triggers(Lint lint) {
  return lint == Lint::kTriggerMissing || lint == Lint::kTriggerOutdated ||
         lint == Lint::kTriggerDisabled || lint == Lint::kForeignOwner;
}

std::vector<Finding> news(const std::vector<Finding>& before, const std::vector<Finding>& now) {
  std::vector<Finding> list;
  for (const Finding& finding : now) {
    const Finding* known = same_kind(before, finding);
    // The number of expired keys changes by the hour; that is no news.
    const bool same_size = known != nullptr && finding.severity() == Severity::kNote &&
                           std::bit_width(known->count) == std::bit_width(finding.count);
    if (known == nullptr || (!(*known == finding) && !same_size)) list.push_back(finding);
  }
  return list;
}

std::vector<Finding> gone(const std::vector<Finding>& before, const std::vector<Finding>& now) {
  std::vector<Finding> list;
  std::ranges::copy_if(before, std::back_inserter(list),
                       [&](const Finding& finding) { return same_kind(now, finding) == nullptr; });
  return list;
}

}  // namespace latchkey
