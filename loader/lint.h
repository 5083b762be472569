// Findings about the rows of a loaded table. Pure. The database's own code reports findings from
// the catalogue.
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

// The findings of one load. Re-reads of single rows are not counted: a finding is about a table.
class LoadLint {
 public:
  // `now_us`: time since 1970, decides which keys have expired. `source` must outlive this.
  LoadLint(const SourceConfig& source, std::int64_t now_us) : source_(source), now_us_(now_us) {}

  void count(const RowMeaning& row);

  [[nodiscard]] const OddityCounts& oddities() const { return oddities_; }

  // Sorted by number. `usable_rows`: rows with a record; `shared_keys`: keys that are in several
  // rows each.
  [[nodiscard]] std::vector<Finding> findings(std::size_t usable_rows,
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
  // Unknown pepper versions in printable form. Bounded: a column mapped as the version by mistake
  // can hold any text.
  std::map<std::string, std::uint64_t> versions_;
  bool too_many_versions_ = false;
};

// One finding for each other source that holds keys of this one.
[[nodiscard]] std::vector<Finding> overlap_findings(const std::vector<OverlapWalk::Shared>& shared);

}  // namespace latchkey
