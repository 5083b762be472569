#include "tool/report.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "tool/text.h"

namespace latchkey {

using nlohmann::ordered_json;

std::string report_title(const ordered_json& status) {
  std::string title = "latchkeyd " + status.value("version", "");
  if (status.contains("pid")) title += ", pid " + std::to_string(status.value("pid", 0LL));
  title += ", up " + span_text(status.value("uptime_s", 0.0));
  if (status.contains("workers")) {
    title += ", " + std::to_string(status.value("workers", 0LL)) + " worker(s)";
  }
  return title;
}

std::vector<Trouble> report_troubles(const ordered_json& status) {
  std::vector<Trouble> list;
  const auto state_of = [](const char* what, const ordered_json& object) {
    std::string text =
        std::string(what) + " " + object.value("name", "") + " " + object.value("state", "");
    if (object.contains("since_s")) text += " for " + span_text(object.value("since_s", 0.0));
    return text;
  };
  for (const ordered_json& database : status.value("databases", ordered_json::array())) {
    if (database.value("state", "") != "live") {
      list.push_back({state_of("database", database), database.value("last_error", "")});
    }
    if (const auto times = database.value("identity_changes", 0LL)) {
      list.push_back({"database " + database.value("name", "") + ": ANOTHER SERVER answered",
                      std::to_string(times) +
                          " time(s): a restored backup or an old primary. What was known was"
                          " discarded each time."});
    }
    for (const ordered_json& reader : database.value("stalled_readers", ordered_json::array())) {
      list.push_back({reader.is_string() ? reader.get<std::string>() + " is stuck" : "stuck",
                      "Memory cannot be freed meanwhile."});
    }
  }
  for (const ordered_json& source : status.value("sources", ordered_json::array())) {
    if (source.value("state", "") != "fresh") list.push_back({state_of("source", source), ""});
    for (const ordered_json& problem : source.value("problems", ordered_json::array())) {
      if (!problem.is_string()) continue;
      list.push_back({"source " + source.value("name", ""), problem.get<std::string>()});
    }
  }
  if (status.contains("reloads")) {
    const ordered_json& reloads = status["reloads"];
    if (const auto error = reloads.value("last_error", ""); !error.empty()) {
      list.push_back(
          {"the last reload failed", "What runs is the configuration before it: " + error});
    }
    for (const ordered_json& setting : reloads.value("need_restart", ordered_json::array())) {
      if (!setting.is_string()) continue;
      list.push_back({"a restart is needed", setting.get<std::string>() + " has changed."});
    }
  }
  if (!status.value("socket_in_place", true)) {
    list.push_back({"the socket's file is gone", "No new caller finds latchkeyd: restart it."});
  }
  return list;
}

std::string column(std::string text, std::size_t width) {
  text.resize(std::max(width, text.size() + 1), ' ');
  return text;
}

}  // namespace latchkey
