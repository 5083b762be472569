// The reasons why a source cannot be served: compares the catalogue's facts with the source's
// mapping.
#pragma once

#include <vector>

#include "config/source.h"
#include "loader/finding.h"
#include "loader/postgres/catalogue.h"

namespace latchkey {

// Each finding is a paragraph with its remedy; empty if there is none. All are errors.
[[nodiscard]] std::vector<Finding> problems(const SourceConfig& source, const TableFacts& facts);

}  // namespace latchkey
