// Reports on a load and its result: as text, as JSON, and as a self-contained page with plots.
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
// A `report` is the result of report_json(), possibly of another run. Both functions throw
// nlohmann::json::exception for any other object.
[[nodiscard]] std::string report_text(const nlohmann::ordered_json& report);
[[nodiscard]] std::string report_html(const std::vector<nlohmann::ordered_json>& reports,
                                      const std::string& title);

}  // namespace latchkey
