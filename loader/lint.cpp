#include "loader/lint.h"

#include <algorithm>

namespace latchkey {
namespace {

// Limits for the number of pepper versions named, and for the characters of each.
constexpr std::size_t kVersionsMax = 8;
constexpr std::size_t kVersionCharacters = 64;

// A row can hold any text: make it harmless for terminals and readers of the log.
std::string shown(const std::optional<std::string_view>& version) {
  if (!version) return "NULL";
  std::string text(version->substr(0, kVersionCharacters));
  std::ranges::replace_if(
      text, [](char c) { return c <= ' ' || c > '~' || c == '"'; }, '?');
  return "\"" + text + "\"";
}

std::string counted(std::uint64_t count, const std::string& text) {
  return std::to_string(count) + " " + text;
}

}  // namespace

void LoadLint::count(const RowMeaning& row) {
  ++rows_;
  row.odd.count_in(oddities_);
  if (row.odd.has(Oddity::kUnknownPepper)) count_version(row.pepper_version);
  if (!row.facts || row.facts->state != RowState::kActive) return;
  if (row.facts->expires_us != kNeverExpires && row.facts->expires_us <= now_us_) {
    ++expired_;
    return;
  }
  ++good_;
  if (row.short_key) ++short_keys_;
}

void LoadLint::count_version(const std::optional<std::string_view>& version) {
  if (too_many_versions_) return;
  ++versions_[shown(version)];
  if (versions_.size() <= kVersionsMax) return;
  too_many_versions_ = true;
  versions_.clear();
}

std::string LoadLint::oddity_text(Oddity oddity) const {
  std::string text = counted(oddities_[static_cast<std::size_t>(oddity)], "rows: ") +
                     oddity_name(oddity) + ": " + oddity_sentence(oddity) + ".";
  if (oddity != Oddity::kUnknownPepper) return text;
  const std::string& column = *source_.column(Role::kKeyVersion);
  // A value that differs in each row is no version, and may be secret.
  if (too_many_versions_ || column == *source_.column(Role::kKey)) {
    return text +
           " There are so many different ones that `key_version` may name the wrong column"
           " (\"" +
           column + "\").";
  }
  std::vector<std::pair<std::string, std::uint64_t>> most(versions_.begin(), versions_.end());
  std::ranges::stable_sort(most, [](const auto& a, const auto& b) { return a.second > b.second; });
  text += " The versions:";
  for (const auto& [version, count] : most) {
    text +=
        (version == most.front().first ? " " : ", ") + version + " (" + std::to_string(count) + ")";
  }
  return text + ".";
}

std::vector<Finding> LoadLint::findings(std::size_t usable_rows, std::size_t shared_keys) const {
  std::vector<Finding> found;
  const auto add = [&found](Lint lint, std::uint64_t count, const std::string& text) {
    found.push_back({.lint = lint, .count = count, .about = "", .text = text});
  };
  const std::string table = source_.table.display();
  const std::string section = "[[source]] \"" + source_.name + "\"";

  for (std::size_t i = 0; i < kOddities; ++i) {
    const auto oddity = static_cast<Oddity>(i);
    if (oddities_[i] > 0) add(lint_of(oddity), oddities_[i], oddity_text(oddity));
  }
  if (rows_ > 0 && usable_rows == 0) {
    add(Lint::kNoUsableRow, rows_,
        "not one of the " + std::to_string(rows_) + " rows of " + table +
            " can be used, so every key is unknown. `scheme`, `encoding` or `key` of " + section +
            " is wrong.");
  }
  if (usable_rows > 0 && good_ == 0) {
    add(Lint::kAllRefused, rows_,
        counted(rows_, "rows, all that " + table +
                           " has, refuse their keys: they are deleted, disabled, revoked, expired,"
                           " of a status in no list, or not understood (see the other findings). "
                           "If that is not so in the application, " +
                           section + " names the wrong column or the wrong words."));
  }
  if (shared_keys > 0) {
    add(Lint::kKeyInSeveralRows, shared_keys,
        counted(shared_keys,
                "keys stand in several rows each. Such a key is refused unless a single row holds"
                " it: delete or change the others."));
  }
  if (short_keys_ > 0) {
    add(Lint::kShortKey, short_keys_,
        counted(short_keys_,
                "active keys are shorter than " + std::to_string(kShortKeyBytes) +
                    " bytes. Such keys can often be guessed: 19 hexadecimal digits hold at most 76"
                    " random bits, and what a person made up far fewer. Issue longer ones"
                    " (`latchkey mint` makes them) and revoke these."));
  }
  if (expired_ > 0) {
    add(Lint::kExpiredButActive, expired_,
        counted(expired_,
                "rows are active but have expired. Their keys are refused as expired; mark or"
                " delete such rows now and then, so that they are not brought back to life by a"
                " changed expiry."));
  }
  if (rows_ == 0) {
    add(Lint::kTableEmpty, 0,
        table +
            " holds no rows, so every key is unknown. Before the first key is issued that is"
            " as it should be; else `table` of " +
            section + " or `conninfo` of its database leads to the wrong place.");
  }
  return found;
}

std::vector<Finding> overlap_findings(const std::vector<OverlapWalk::Shared>& shared) {
  std::vector<Finding> found;
  for (const auto& [with, rows] : shared) {
    if (rows == 0) continue;
    found.push_back(
        {.lint = Lint::kKeyInSeveralSources,
         .count = rows,
         .about = with->name,
         .text = counted(rows, "rows hold keys that source \"" + with->name +
                                   "\" holds as well. If keys move from one table to the other,"
                                   " that is as it should be: of two good rows the one in the"
                                   " source configured first answers, and a row that refuses, in"
                                   " either, refuses the key. Else find out who issues keys"
                                   " twice.")});
  }
  return found;
}

}  // namespace latchkey
