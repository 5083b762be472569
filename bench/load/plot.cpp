#include "bench/load/plot.h"

#include <algorithm>
#include <cmath>
#include <sstream>

#include "tool/text.h"

namespace latchkey {
namespace {

constexpr double kWidth = 760, kHeight = 320;
constexpr double kLeft = 76, kRight = 44, kTop = 40, kBottom = 52;

struct Scale {
  double first, last, from, to;
  bool logarithmic;
  [[nodiscard]] double of(double value) const {
    const auto map = [&](double x) { return logarithmic ? std::log10(x) : x; };
    return from + (map(value) - map(first)) / (map(last) - map(first)) * (to - from);
  }
  [[nodiscard]] bool holds(double value) const { return value >= first && value <= last; }
};

Scale scale_of(const Axis& axis, double from, double to) {
  return {axis.ticks.front().at, axis.ticks.back().at, from, to, axis.logarithmic};
}

std::string begin(const std::string& title, double height) {
  std::ostringstream svg;
  svg << "<svg viewBox='0 0 " << kWidth << ' ' << height << "' role='img' aria-label='"
      << escaped(title) << "'><text class='title' x='" << kLeft << "' y='22'>" << escaped(title)
      << "</text>";
  return svg.str();
}

}  // namespace

std::string escaped(const std::string& text) {
  std::string safe;
  for (const char c : text) {
    switch (c) {
      case '&': safe += "&amp;"; break;
      case '<': safe += "&lt;"; break;
      case '>': safe += "&gt;"; break;
      case '\'': safe += "&#39;"; break;
      case '"': safe += "&quot;"; break;
      default: safe += c;
    }
  }
  return safe;
}

std::vector<Tick> linear_ticks(double max) {
  if (!(max > 0)) max = 1;
  const double rough = max / 5, power = std::pow(10, std::floor(std::log10(rough)));
  double step = 10 * power;
  for (const double factor : {1.0, 2.0, 5.0}) {
    if (factor * power >= rough) {
      step = factor * power;
      break;
    }
  }
  std::vector<Tick> ticks;
  for (int i = 0; ticks.empty() || ticks.back().at < max; ++i) {
    ticks.push_back({i * step, short_number(i * step)});
  }
  return ticks;
}

std::vector<Tick> logarithmic_ticks(double min, double max) {
  if (!(min > 0)) min = 1;
  const int first = static_cast<int>(std::floor(std::log10(min)));
  const int last = std::max(first + 1, static_cast<int>(std::ceil(std::log10(std::max(max, min)))));
  std::vector<Tick> ticks;
  for (int power = first; power <= last; ++power) {
    ticks.push_back({std::pow(10, power), short_number(std::pow(10, power))});
  }
  return ticks;
}

std::string line_plot(const std::string& title, const Axis& x, const Axis& y,
                      const std::vector<Series>& series) {
  const double legend = 22 * static_cast<double>(series.size());
  const Scale across = scale_of(x, kLeft, kWidth - kRight);
  const Scale up = scale_of(y, kHeight - kBottom, kTop);
  std::ostringstream svg;
  svg << begin(title, kHeight + legend);
  for (const Tick& tick : y.ticks) {
    const double at = up.of(tick.at);
    svg << "<line class='grid' x1='" << kLeft << "' x2='" << kWidth - kRight << "' y1='" << at
        << "' y2='" << at << "'/><text class='tick' text-anchor='end' x='" << kLeft - 8 << "' y='"
        << at + 4 << "'>" << escaped(tick.label) << "</text>";
  }
  for (const Tick& tick : x.ticks) {
    const double at = across.of(tick.at);
    svg << "<line class='grid' x1='" << at << "' x2='" << at << "' y1='" << kTop << "' y2='"
        << kHeight - kBottom << "'/><text class='tick' text-anchor='middle' x='" << at << "' y='"
        << kHeight - kBottom + 20 << "'>" << escaped(tick.label) << "</text>";
  }
  svg << "<text class='axis' text-anchor='middle' x='" << (kLeft + kWidth - kRight) / 2 << "' y='"
      << kHeight - 10 << "'>" << escaped(x.label)
      << "</text><text class='axis' text-anchor='middle'"
      << " transform='translate(16 " << (kTop + kHeight - kBottom) / 2 << ") rotate(-90)'>"
      << escaped(y.label) << "</text>";
  for (std::size_t i = 0; i < series.size(); ++i) {
    svg << "<polyline class='line c" << i % 6 << "' points='";
    for (const auto& [px, py] : series[i].points) {
      if (across.holds(px) && up.holds(py)) svg << across.of(px) << ',' << up.of(py) << ' ';
    }
    const double at = kHeight + 22 * static_cast<double>(i);
    svg << "'/><line class='line c" << i % 6 << "' x1='" << kLeft << "' x2='" << kLeft + 24
        << "' y1='" << at + 6 << "' y2='" << at + 6 << "'/><text class='legend' x='" << kLeft + 32
        << "' y='" << at + 10 << "'>" << escaped(series[i].name) << "</text>";
  }
  svg << "</svg>\n";
  return svg.str();
}

std::string bar_plot(const std::string& title, const std::string& unit,
                     const std::vector<std::pair<std::string, double>>& bars) {
  constexpr double kRow = 34, kNames = 220, kValues = 110;
  const double height = kTop + kRow * static_cast<double>(bars.size()) + 8;
  double max = 0;
  for (const auto& [name, value] : bars) max = std::max(max, value);
  std::ostringstream svg;
  svg << begin(title + " (" + unit + ")", height);
  for (std::size_t i = 0; i < bars.size(); ++i) {
    const auto& [name, value] = bars[i];
    const double at = kTop + kRow * static_cast<double>(i);
    const double width = max > 0 ? value / max * (kWidth - kNames - kValues) : 0;
    svg << "<text class='legend' text-anchor='end' x='" << kNames - 8 << "' y='" << at + 18 << "'>"
        << escaped(name) << "</text><rect class='bar c" << i % 6 << "' x='" << kNames << "' y='"
        << at + 3 << "' width='" << width << "' height='" << kRow - 12
        << "'/><text class='legend' x='" << kNames + width + 8 << "' y='" << at + 18 << "'>"
        << short_number(value) << "</text>";
  }
  svg << "</svg>\n";
  return svg.str();
}

}  // namespace latchkey
