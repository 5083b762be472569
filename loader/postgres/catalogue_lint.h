// Findings about a table that can be loaded, from its catalogue. Pure. (problems.h has the reasons
// why a table cannot be loaded, lint.h the findings about its rows.)
#pragma once

#include <vector>

#include "config/source.h"
#include "loader/finding.h"
#include "loader/postgres/catalogue.h"

namespace latchkey {

// Sorted by number.
[[nodiscard]] std::vector<Finding> catalogue_findings(const SourceConfig& source,
                                                      const TableFacts& facts);

}  // namespace latchkey
