// `latchkeyd --check`.
#pragma once

#include <memory>
#include <vector>

#include "loader/finding.h"
#include "loader/postgres/loader.h"

namespace latchkey {

// Prints `trouble` and what the loaders have found, for people, on standard output. The exit
// status.
[[nodiscard]] int report_check(const std::vector<LintFinding>& trouble,
                               const std::vector<std::unique_ptr<Loader>>& loaders);

}  // namespace latchkey
