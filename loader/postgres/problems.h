// What keeps a source from being served: the catalogue's facts against what the source maps.
#pragma once

#include <vector>

#include "config/source.h"
#include "loader/finding.h"
#include "loader/postgres/catalogue.h"

namespace latchkey {

// Each a paragraph that says what to do; empty if nothing. All are errors.
[[nodiscard]] std::vector<LintFinding> problems(const SourceConfig& source,
                                                const TableFacts& facts);

}  // namespace latchkey
