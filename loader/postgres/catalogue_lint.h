// What there is to say of a table that can be loaded, from its catalogue. Pure. (problems.h says
// why a table cannot be loaded at all, lint.h what there is to say of its rows.)
#pragma once

#include <vector>

#include "config/source.h"
#include "loader/finding.h"
#include "loader/postgres/catalogue.h"

namespace latchkey {

// In the order of their numbers.
[[nodiscard]] std::vector<LintFinding> catalogue_findings(const SourceConfig& source,
                                                          const TableFacts& facts);

}  // namespace latchkey
