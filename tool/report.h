// Functions on a status report that `latchkey status` and `latchkey top` share.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

namespace latchkey {

// One line: the version of latchkeyd, its pid, its uptime and its number of workers.
[[nodiscard]] std::string report_title(const nlohmann::ordered_json& status);

struct Trouble {
  std::string what;  // in a few words: source "main" stale
  std::string more;  // a sentence, or empty
};

// All problems in the report; empty if every source is fresh and nothing is stuck.
[[nodiscard]] std::vector<Trouble> report_troubles(const nlohmann::ordered_json& status);

// Pads the text to `width`; a text that is too long gets one space after it.
[[nodiscard]] std::string column(std::string text, std::size_t width);

}  // namespace latchkey
