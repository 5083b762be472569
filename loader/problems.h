// What keeps a source from being served: the catalogue's facts against what the source maps.
#pragma once

#include <vector>

#include "loader/catalogue.h"
#include "loader/finding.h"
#include "loader/source.h"

namespace latchkey {

// Each a paragraph that says what to do; empty if nothing. All are errors.
[[nodiscard]] std::vector<LintFinding> problems(const SourceConfig& source,
                                                const TableFacts& facts);

}  // namespace latchkey
