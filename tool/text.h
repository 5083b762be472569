// Text for a terminal of 80 columns.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/printable.h"

namespace latchkey {

// 2026-01-31T12:00:00Z
[[nodiscard]] std::string utc(std::int64_t seconds);

// At most two units: 412ms, 3.2s, 5m12s, 3h12m, 4d2h.
[[nodiscard]] std::string span_text(double seconds);

// Three digits and a unit: 0, 7, 12.3k, 4.56M.
[[nodiscard]] std::string short_number(double value);

// Returns printable text, broken at spaces before column 80. All lines but the first are indented
// by `indentation`, or by default to the column where `text` begins. Ends with a line break.
[[nodiscard]] std::string wrapped(const std::string& start, std::string_view text,
                                  std::size_t indentation = std::string::npos);

}  // namespace latchkey
