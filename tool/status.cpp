// latchkey status: a summary of the daemon. Each database and source has one line, marked with an
// exclamation mark if it has a problem; details follow below the line.

#include <algorithm>
#include <cstdio>
#include <iostream>
#include <nlohmann/json.hpp>

#include "tool/commands.h"
#include "tool/connection.h"
#include "tool/report.h"
#include "tool/text.h"

namespace latchkey {
namespace {

using nlohmann::ordered_json;

constexpr const char* kIndentation = "           ";

std::string text_of(const ordered_json& object, const char* name) {
  return object.value(name, std::string());
}

ordered_json object_of(const ordered_json& object, const char* name) {
  return object.value(name, ordered_json::object());
}

std::string number_of(const ordered_json& object, const char* name) {
  return std::to_string(object.value(name, 0LL));
}

// The kind, the name, the state, and the time in that state.
std::string heading(const char* what, const ordered_json& object, bool good) {
  std::string line = column(what, 9) + (good ? "  " : "! ") + column(text_of(object, "name"), 18) +
                     column(text_of(object, "state"), 12);
  if (object.contains("since_s")) line += column(span_text(object.value("since_s", 0.0)), 8);
  return line;
}

std::string age_of(const ordered_json& source) {
  if (!source.contains("age_ms")) return "never loaded";
  return "age " + span_text(source.value("age_ms", 0.0) / 1000);
}

// The first lines: the title, and a summary of the problems.
void print_summary(const ordered_json& status) {
  std::cout << printable(report_title(status)) << '\n';
  std::string summary;
  for (const Trouble& trouble : report_troubles(status)) {
    if (summary.find(trouble.what) != std::string::npos) continue;
    summary += (summary.empty() ? "" : ", ") + trouble.what;
  }
  std::cout << (summary.empty() ? "Every source is fresh.\n" : wrapped("NOT IN ORDER: ", summary));
}

void print_problem(const std::string& text) {
  std::cout << wrapped(std::string(kIndentation) + "PROBLEM: ", text, 13);
}

void print_database(const ordered_json& database) {
  const bool live = text_of(database, "state") == "live";
  std::string line = heading("database", database, live);
  if (const auto changes = database.value("identity_changes", 0LL)) {
    line += "ANOTHER SERVER (" + std::to_string(changes) + " times), ";
  }
  if (live) line += "heartbeat " + span_text(database.value("heartbeat_us", 0.0) / 1e6);
  if (const auto failures = database.value("failures", 0LL)) {
    line += (live ? ", " : "") + std::to_string(failures) + " failure(s)";
  }
  std::cout << printable(line) << '\n';
  if (const std::string trouble = text_of(database, "trouble"); !trouble.empty()) {
    print_problem(trouble);
  }
  if (const std::string error = text_of(database, "last_error"); !error.empty()) {
    const std::string ago = span_text(database.value("last_error_age_s", 0.0)) + " ago";
    if (live) {
      std::cout << wrapped(std::string(kIndentation) + "over since; last error " + ago + ": ",
                           error, 13);
    } else {
      print_problem(error + " (" + ago + ")");
    }
  }
  for (const ordered_json& reader : database.value("stalled_readers", ordered_json::array())) {
    print_problem(reader.get<std::string>() + " stuck in one batch for " +
                  span_text(database.value("stalled_s", 0.0)) + ": memory cannot be freed");
  }
}

void print_memory(const ordered_json& source) {
  const auto memory = source.find("memory_bytes");
  if (memory == source.end()) return;
  std::string line = kIndentation + std::string("memory");
  for (const auto& [name, bytes] : memory->items()) {
    char text[64];
    std::snprintf(text, sizeof text, " %s %.1f MiB", name.c_str(), bytes.get<double>() / (1 << 20));
    line += text;
  }
  std::cout << printable(line) << '\n';
}

void print_source(const ordered_json& source) {
  const bool fresh = text_of(source, "state") == "fresh";
  const std::string line = heading("source", source, fresh) + column(age_of(source), 12);
  if (!source.contains("keys")) {  // the restricted status of a caller without all rights
    std::cout << printable(line.substr(0, line.find_last_not_of(' ') + 1)) << '\n';
    return;
  }
  std::cout << printable(line + number_of(source, "keys") + " keys") << '\n';

  for (const ordered_json& problem : source.value("problems", ordered_json::array())) {
    print_problem(problem.get<std::string>());
  }
  // Short forms: `--json` and docs/lint.md describe each finding in full.
  for (const ordered_json& finding : source.value("findings", ordered_json::array())) {
    std::string found = kIndentation + text_of(finding, "number") + " " +
                        text_of(finding, "severity") + ": " + text_of(finding, "name");
    if (const auto count = finding.value("count", 0LL)) found += " (" + std::to_string(count) + ")";
    std::cout << printable(found) << '\n';
  }
  if (source.value("loading", false)) {
    std::string progress = kIndentation + std::string("loading: ") + number_of(source, "load_rows");
    if (source.contains("rows_expected"))
      progress += " of about " + number_of(source, "rows_expected");
    progress += " rows";
    if (source.contains("load_rows_per_s"))
      progress += ", " + number_of(source, "load_rows_per_s") + " a second";
    std::cout << progress << '\n';
  }
  std::cout << kIndentation << number_of(source, "accepted") << " accepted";
  std::cout << ", read " << number_of(source, "loads") << " times as a whole, "
            << number_of(source, "rereads") << " rows by id\n";
  if (source.contains("audited_ago_s")) {
    std::cout << kIndentation << "audited " << span_text(source.value("audited_ago_s", 0.0))
              << " ago, " << number_of(source, "audits") << " times, "
              << number_of(source, "audit_mismatches") << " mismatch(es)\n";
  }
  if (source.contains("unseen_s")) {
    std::cout << kIndentation << "what tells nobody: unseen for "
              << span_text(source.value("unseen_s", 0.0)) << ", at most "
              << span_text(source.value("unseen_max_s", 0.0)) << '\n';
  }
  const ordered_json peppers = object_of(source, "accepted_by_pepper");
  for (const auto& [name, count] : peppers.items()) {
    std::cout << kIndentation << count.get<long long>() << " accepted by pepper " << printable(name)
              << '\n';
  }
  if (const ordered_json counts = object_of(source, "last_used"); !counts.empty()) {
    std::string uses = kIndentation + std::string("last_used_at:");
    for (const auto& [name, count] : counts.items()) {
      uses += " " + name + " " + std::to_string(count.get<long long>());
    }
    std::cout << printable(uses) << '\n';
  }
  print_memory(source);
}

void print_counters(const char* title, const ordered_json& counters) {
  std::string text;
  for (const auto& [name, count] : counters.items()) {
    if (count.get<long long>() > 0) {
      text += (text.empty() ? "" : ", ") + name + " " + std::to_string(count.get<long long>());
    }
  }
  if (text.empty()) text = "none so far";
  std::cout << wrapped(column(title, 11), text);
}

void print_status(const ordered_json& status) {
  print_summary(status);
  for (const ordered_json& database : status.value("databases", ordered_json::array())) {
    print_database(database);
  }
  for (const ordered_json& source : status.at("sources")) print_source(source);
  if (!status.contains("verdicts")) return;
  print_counters("verdicts", status.at("verdicts"));
  print_counters("callers", status.at("connections"));
  const ordered_json refused = {{"protocol errors", status.value("protocol_errors", 0LL)},
                                {"why refused", status.value("refused_no_reasons", 0LL)},
                                {"operations refused", status.value("refused_operations", 0LL)}};
  if (std::ranges::any_of(refused, [](const ordered_json& count) { return count != 0; })) {
    print_counters("refusals", refused);
  }
}

}  // namespace

int run_status(const CommonSettings& common) {
  const ordered_json status = Connection(common.socket, common.timeout).status();
  if (common.json) {
    std::cout << status.dump() << '\n';
  } else {
    print_status(status);
  }
  return kExitAllActive;
}

}  // namespace latchkey
