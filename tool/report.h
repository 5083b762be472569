// What `latchkey status` and `latchkey top` both read out of a status report.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

namespace latchkey {

// Which latchkeyd it is, and since when it runs.
[[nodiscard]] std::string report_title(const nlohmann::ordered_json& status);

struct Trouble {
  std::string what;  // in a few words: source "main" stale
  std::string more;  // a sentence, or nothing
};

// All that is not as it should be; empty if every source is fresh and nothing is stuck.
[[nodiscard]] std::vector<Trouble> report_troubles(const nlohmann::ordered_json& status);

// Pads, or, where a text is longer than its column, keeps a space behind it.
[[nodiscard]] std::string column(std::string text, std::size_t width);

}  // namespace latchkey
