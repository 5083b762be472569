// What a load was and how it went: as lines, as JSON, and as a page with plots that needs nothing
// else.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "bench/load/generator.h"

namespace latchkey {

// `title` names the run in comparisons.
[[nodiscard]] nlohmann::ordered_json report_json(const LoadSettings& settings,
                                                 const LoadResult& result,
                                                 const std::string& title);
// From here on, a report is what report_json() made, perhaps in another run. Both throw
// nlohmann::json::exception if it is not.
[[nodiscard]] std::string report_text(const nlohmann::ordered_json& report);
[[nodiscard]] std::string report_html(const std::vector<nlohmann::ordered_json>& reports,
                                      const std::string& title);

}  // namespace latchkey
