// `latchkeyd --check`.
#pragma once

#include <memory>
#include <vector>

#include "loader/finding.h"
#include "loader/postgres/loader.h"

namespace latchkey {

// Prints `trouble` and the loaders' findings on standard output, for people. Returns the exit
// status.
[[nodiscard]] int report_check(const std::vector<Finding>& trouble,
                               const std::vector<std::unique_ptr<Loader>>& loaders);

}  // namespace latchkey
