// What there is to say of a table's rows after they were loaded. Pure. What the catalogue says of
// the table is the engine's to tell.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "config/source.h"
#include "loader/finding.h"
#include "loader/overlap.h"
#include "loader/row_meaning.h"

namespace latchkey {

// Keys stored in the clear are reported if they are shorter than this: 19 hexadecimal digits are 76
// random bits at most, and most keys this short were made up by a person. The server compares the
// length; the key stays there.
constexpr int kShortKeyBytes = 20;

// One load. Re-reads of single rows are not counted: a finding is about a table.
class LoadLint {
 public:
  // `now_us` since 1970: which keys have expired. `source` outlives it.
  LoadLint(const SourceConfig& source, std::int64_t now_us) : source_(source), now_us_(now_us) {}

  void count(const RowMeaning& row);

  [[nodiscard]] const OddityCounts& oddities() const { return oddities_; }

  // In the order of their numbers. `usable_rows` have a record, `shared_keys` stand in several rows
  // each.
  [[nodiscard]] std::vector<LintFinding> findings(std::size_t usable_rows,
                                                  std::size_t shared_keys) const;

 private:
  void count_version(const std::optional<std::string_view>& version);
  [[nodiscard]] std::string oddity_text(Oddity oddity) const;

  const SourceConfig& source_;
  std::int64_t now_us_;
  OddityCounts oddities_{};
  std::uint64_t rows_ = 0;
  std::uint64_t good_ = 0;  // active, and not expired
  std::uint64_t short_keys_ = 0;
  std::uint64_t expired_ = 0;
  // Pepper versions that are not at hand, as they are shown. Bounded: a column that was taken for
  // the version by mistake can hold anything.
  std::map<std::string, std::uint64_t> versions_;
  bool too_many_versions_ = false;
};

// For each other source that holds keys of this one.
[[nodiscard]] std::vector<LintFinding> overlap_findings(
    const std::vector<OverlapWalk::Shared>& shared);

}  // namespace latchkey
