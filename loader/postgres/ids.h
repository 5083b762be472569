// Ids of rows as notifications name them and queries ask for them.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "config/source.h"
#include "loader/postgres/catalogue.h"

namespace latchkey {

// An id from a notification in the spelling of the table's own column: char(n) without its padding.
[[nodiscard]] std::string_view id_as_read(const SourceConfig& source, const TableFacts& facts,
                                          std::string_view id);
// True if the re-read can ask for this id. A notification can hold any text.
[[nodiscard]] bool is_id(const SourceConfig& source, const TableFacts& facts, std::string_view id);
// True if the database might fail to convert this id to its own encoding. The query for that id
// would then fail, and a forged id would block the re-read of other ids.
[[nodiscard]] bool id_may_not_convert(const SourceConfig& source, const TableFacts& facts,
                                      std::string_view id);
// ids -> '{"a","b"}'
[[nodiscard]] std::string array_literal(const std::vector<std::string>& ids);

}  // namespace latchkey
