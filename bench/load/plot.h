// Plots as SVG for a page. Colours, fonts and the light or dark theme come from the page's style
// sheet.
#pragma once

#include <string>
#include <vector>

namespace latchkey {

struct Series {
  std::string name;
  std::vector<std::pair<double, double>> points;
};

struct Tick {
  double at;
  std::string label;
};

struct Axis {
  std::string label;  // with its unit
  std::vector<Tick> ticks;
  bool logarithmic = false;
  // The axis ranges from the first to the last tick.
};

// Ticks at 1, 2 or 5 times a power of ten, from zero to at least `max`.
[[nodiscard]] std::vector<Tick> linear_ticks(double max);
// Powers of ten that enclose `min` and `max`.
[[nodiscard]] std::vector<Tick> logarithmic_ticks(double min, double max);

// Points outside the axes are left out.
[[nodiscard]] std::string line_plot(const std::string& title, const Axis& x, const Axis& y,
                                    const std::vector<Series>& series);
// One bar for each value, starting at zero.
[[nodiscard]] std::string bar_plot(const std::string& title, const std::string& unit,
                                   const std::vector<std::pair<std::string, double>>& bars);

// Escapes text for use between tags.
[[nodiscard]] std::string escaped(const std::string& text);

}  // namespace latchkey
