#include "bench/load/report.h"

#include <sys/utsname.h>
#include <unistd.h>

#include <cmath>
#include <cstdio>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "bench/load/plot.h"
#include "tool/text.h"

namespace latchkey {
namespace {

using nlohmann::ordered_json;

double us(std::uint64_t ns) { return static_cast<double>(ns) / 1000; }
double seconds(std::chrono::milliseconds time) { return static_cast<double>(time.count()) / 1000; }

std::string processor_model() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with("model name")) return line.substr(line.find(':') + 2);
  }
  return "unknown";
}

ordered_json machine() {
  utsname kernel{};
  uname(&kernel);
  return {{"processors", sysconf(_SC_NPROCESSORS_ONLN)},
          {"model", processor_model()},
          {"kernel", std::string(kernel.sysname) + " " + kernel.release}};
}

// Even steps on the customary axis, on which each further nine takes the same room.
std::vector<double> shares_told(std::uint64_t count) {
  std::vector<double> shares;
  for (double inverse = 1; inverse <= static_cast<double>(std::max<std::uint64_t>(count, 1));
       inverse *= std::pow(10, 0.1)) {
    shares.push_back(1 - 1 / inverse);
  }
  return shares;
}

std::string number(double value, int decimals) {
  char text[64];
  std::snprintf(text, sizeof text, "%.*f", decimals, value);
  return text;
}

std::string percent(double share) {
  std::string text = number(share * 100, 4);
  text.erase(text.find_last_not_of('0') + 1);
  if (text.ends_with('.')) text.pop_back();
  return text + " %";
}

constexpr const char* kStyle = R"(
:root { color-scheme: light dark; --ink: #1c1c1e; --soft: #5b5b62; --paper: #ffffff; --grid: #e2e2e6;
  --c0: #0072b2; --c1: #d55e00; --c2: #00805f; --c3: #b0508a; --c4: #9a6b00; --c5: #3a8fc4; }
@media (prefers-color-scheme: dark) { :root { --ink: #ececf0; --soft: #a6a6b0; --paper: #17171a;
  --grid: #34343a; --c0: #56b4e9; --c1: #ff8a3d; --c2: #2fcf9f; --c3: #e58fc0; --c4: #e6b422;
  --c5: #8fd0f5; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper);
  max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; margin: 1rem 0; }
th, td { padding: .25rem .75rem; text-align: right; border-bottom: 1px solid var(--grid); }
th:first-child, td:first-child { text-align: left; }
svg { width: 100%; height: auto; margin: 1rem 0; }
svg text { fill: var(--ink); font-family: system-ui, sans-serif; }
.title { font-size: 16px; font-weight: 600; } .tick { font-size: 12px; fill: var(--soft); }
.axis, .legend { font-size: 13px; } .grid { stroke: var(--grid); stroke-width: 1; }
.line { fill: none; stroke-width: 2; stroke-linejoin: round; }
.line.c0 { stroke: var(--c0); } .line.c1 { stroke: var(--c1); } .line.c2 { stroke: var(--c2); }
.line.c3 { stroke: var(--c3); } .line.c4 { stroke: var(--c4); } .line.c5 { stroke: var(--c5); }
.bar.c0 { fill: var(--c0); } .bar.c1 { fill: var(--c1); } .bar.c2 { fill: var(--c2); }
.bar.c3 { fill: var(--c3); } .bar.c4 { fill: var(--c4); } .bar.c5 { fill: var(--c5); }
p, caption { color: var(--soft); }
)";

std::string summary_table(const std::vector<ordered_json>& reports) {
  std::ostringstream html;
  html << "<table><tr><th>run</th><th>connections</th><th>depth</th><th>batch</th><th>keys/s</th>"
          "<th>p50, µs</th><th>p99, µs</th><th>p99.9, µs</th><th>max, µs</th></tr>";
  for (const ordered_json& report : reports) {
    const ordered_json& settings = report.at("settings");
    const ordered_json& latency = report.at("latency_us");
    html << "<tr><td>" << escaped(report.at("title").get<std::string>()) << "</td><td>"
         << settings.at("connections") << "</td><td>" << settings.at("depth") << "</td><td>"
         << settings.at("batch") << "</td><td>"
         << short_number(report.at("keys_per_s").get<double>()) << "</td>";
    for (const char* share : {"p50", "p99", "p99.9", "max"}) {
      html << "<td>" << number(latency.at(share).get<double>(), 1) << "</td>";
    }
    html << "</tr>";
  }
  html << "</table>\n";
  return html.str();
}

std::string throughput_plot(const std::vector<ordered_json>& reports) {
  std::vector<Series> series;
  double end_s = 0, max = 0;
  for (const ordered_json& report : reports) {
    Series line{report.at("title").get<std::string>(), {}};
    const double batch = report.at("settings").at("batch").get<double>();
    for (const ordered_json& interval : report.at("intervals")) {
      const double at = interval.at("begin_s").get<double>();
      const double rate = interval.at("requests_per_s").get<double>() * batch;
      line.points.emplace_back(at, rate);
      max = std::max(max, rate);
    }
    end_s = std::max(end_s, report.at("seconds").get<double>());
    series.push_back(std::move(line));
  }
  return line_plot("Throughput over time", {"time, s", linear_ticks(end_s)},
                   {"keys a second", linear_ticks(max)}, series);
}

std::string latency_plot(const std::vector<ordered_json>& reports) {
  std::vector<Series> series;
  double min = 1e300, max = 0, nines = 1;
  for (const ordered_json& report : reports) {
    Series line{report.at("title").get<std::string>(), {}};
    for (const ordered_json& point : report.at("percentiles")) {
      const double share = point.at(0).get<double>() / 100, latency = point.at(1).get<double>();
      if (share >= 1 || latency <= 0) continue;
      line.points.emplace_back(1 / (1 - share), latency);
      min = std::min(min, latency);
      max = std::max(max, latency);
      nines = std::max(nines, 1 / (1 - share));
    }
    series.push_back(std::move(line));
  }
  Axis x{"percentile of requests", {}, true};
  for (double inverse = 1; x.ticks.size() < 2 || x.ticks.back().at < nines; inverse *= 10) {
    x.ticks.push_back({inverse, percent(1 - 1 / inverse)});
  }
  return line_plot("Latency by percentile", x,
                   {"latency, µs", logarithmic_ticks(std::min(min, 1e300), max), true}, series);
}

std::string comparison(const std::vector<ordered_json>& reports) {
  if (reports.size() < 2) return "";
  std::vector<std::pair<std::string, double>> rates, slowest;
  for (const ordered_json& report : reports) {
    const auto title = report.at("title").get<std::string>();
    rates.emplace_back(title, report.at("keys_per_s").get<double>());
    slowest.emplace_back(title, report.at("latency_us").at("p99").get<double>());
  }
  return bar_plot("Throughput: more is better", "keys a second", rates) +
         bar_plot("99th percentile of latency: less is better", "µs", slowest);
}

}  // namespace

ordered_json report_json(const LoadSettings& settings, const LoadResult& result,
                         const std::string& title) {
  const LatencyHistogram& latencies = result.latencies;
  ordered_json latency = {{"mean", latencies.mean_ns() / 1000}};
  for (const auto& [name, share] : std::initializer_list<std::pair<const char*, double>>{
           {"p50", 0.5}, {"p90", 0.9}, {"p99", 0.99}, {"p99.9", 0.999}, {"p99.99", 0.9999}}) {
    latency[name] = us(latencies.quantile_ns(share));
  }
  latency["max"] = us(latencies.max_ns());
  ordered_json percentiles = ordered_json::array(), intervals = ordered_json::array();
  for (const double share : shares_told(latencies.count())) {
    percentiles.push_back({share * 100, us(latencies.quantile_ns(share))});
  }
  percentiles.push_back({100.0, us(latencies.max_ns())});
  const double length =
      result.intervals.empty() ? 1 : result.seconds / static_cast<double>(result.intervals.size());
  for (const Interval& interval : result.intervals) {
    intervals.push_back({{"begin_s", interval.begin_s},
                         {"requests_per_s", static_cast<double>(interval.requests) / length},
                         {"p50_us", us(interval.latencies.quantile_ns(0.5))},
                         {"p99_us", us(interval.latencies.quantile_ns(0.99))}});
  }
  const double time = std::max(result.seconds, 1e-9);
  return {{"title", title},
          {"version", LATCHKEY_VERSION_TEXT},
          {"settings",
           {{"protocol", settings.peer.name},
            {"loop", settings.rate > 0 ? "open" : "closed"},
            {"rate", settings.rate},
            {"connections", settings.connections},
            {"depth", settings.depth},
            {"batch", settings.batch},
            {"processes", settings.processes},
            {"threads", settings.threads},
            {"warm_up_s", seconds(settings.warm_up)},
            {"duration_s", seconds(settings.duration)},
            {"claims", settings.peer.claims},
            {"hits", settings.choice.hits},
            {"zipf", settings.choice.exponent},
            {"seed", settings.choice.seed}}},
          {"machine", machine()},
          {"seconds", result.seconds},
          {"requests", result.requests},
          {"keys", result.keys},
          {"requests_per_s", static_cast<double>(result.requests) / time},
          {"keys_per_s", static_cast<double>(result.keys) / time},
          {"not_sent", result.not_sent},
          {"wrong_answers", 0},  // a wrong answer would have ended the run
          {"latency_us", latency},
          {"percentiles", percentiles},
          {"intervals", intervals}};
}

std::string report_text(const ordered_json& report) {
  std::ostringstream text;
  const ordered_json& settings = report.at("settings");
  const ordered_json& latency = report.at("latency_us");
  text << report.at("title").get<std::string>() << ": " << settings.at("connections")
       << " connections, depth " << settings.at("depth") << ", batch " << settings.at("batch")
       << ", " << settings.at("threads") << " thread(s), " << settings.at("loop").get<std::string>()
       << " loop";
  if (settings.at("rate").get<double>() > 0) {
    text << " at " << short_number(settings.at("rate").get<double>()) << " requests/s";
  }
  text << "\n  " << short_number(report.at("keys_per_s").get<double>()) << " keys/s, "
       << short_number(report.at("requests_per_s").get<double>()) << " requests/s for "
       << number(report.at("seconds").get<double>(), 1)
       << " s; every answer was right\n  latency, us:";
  for (const auto& [name, value] : latency.items()) {
    text << "  " << name << " " << number(value.get<double>(), 1);
  }
  text << "\n";
  if (const auto left = report.at("not_sent").get<std::uint64_t>(); left > 0) {
    text << "  " << left << " requests waited to be sent at the end: the rate is out of reach\n";
  }
  return text.str();
}

std::string report_html(const std::vector<ordered_json>& reports, const std::string& title) {
  std::ostringstream html;
  const ordered_json& host = reports.at(0).at("machine");
  html << "<!doctype html>\n<html lang='en'><head><meta charset='utf-8'><title>" << escaped(title)
       << "</title><meta name='viewport' content='width=device-width'><style>" << kStyle
       << "</style></head><body><h1>" << escaped(title) << "</h1><p>" << host.at("processors")
       << " processors, " << escaped(host.at("model").get<std::string>()) << "; "
       << escaped(host.at("kernel").get<std::string>())
       << ". Every answer was checked. Compare figures of one run only: machines are noisy.</p>\n"
       << summary_table(reports) << comparison(reports) << throughput_plot(reports)
       << latency_plot(reports)
       << "<p>Latency of an open loop counts from the moment at which a request was to be sent. The"
          " axis of percentiles gives each further nine as much room as the one before.</p>"
          "</body></html>\n";
  return html.str();
}

}  // namespace latchkey
