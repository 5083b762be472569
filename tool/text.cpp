#include "tool/text.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <ctime>

namespace latchkey {

std::string utc(std::int64_t seconds) {
  const std::time_t time = seconds;
  std::tm parts{};
  std::array<char, 40> text{};
  if (gmtime_r(&time, &parts) == nullptr ||
      std::strftime(text.data(), text.size(), "%Y-%m-%dT%H:%M:%SZ", &parts) == 0) {
    return std::to_string(seconds);
  }
  return text.data();
}

std::string span_text(double seconds) {
  seconds = std::max(seconds, 0.0);
  if (const long ms = std::lround(std::min(seconds, 1.0) * 1000); ms < 1000) {
    return std::to_string(ms) + "ms";
  }
  if (seconds < 10) {
    const int tenths = std::max(10, static_cast<int>(seconds * 10));
    return std::to_string(tenths / 10) + "." + std::to_string(tenths % 10) + "s";
  }
  const auto whole = static_cast<std::int64_t>(seconds);
  if (whole < 60) return std::to_string(whole) + "s";
  const auto two = [](std::int64_t large, const char* unit, std::int64_t small, const char* rest) {
    return std::to_string(large) + unit + (small > 0 ? std::to_string(small) + rest : "");
  };
  if (whole < 3600) return two(whole / 60, "m", whole % 60, "s");
  if (whole < 86400) return two(whole / 3600, "h", whole % 3600 / 60, "m");
  return two(whole / 86400, "d", whole % 86400 / 3600, "h");
}

std::string short_number(double value) {
  constexpr std::array kUnits = {"", "k", "M", "G", "T"};
  std::size_t unit = 0;
  while (value >= 999.5 && unit + 1 < kUnits.size()) {
    value /= 1000;
    ++unit;
  }
  const bool whole =
      unit == 0 && (value >= 99.5 || value == static_cast<double>(static_cast<long>(value)));
  const int decimals = whole || value >= 99.95 ? 0 : value >= 9.995 ? 1 : 2;
  char text[32];
  std::snprintf(text, sizeof text, "%.*f%s", decimals, value, kUnits[unit]);
  return text;
}

std::string wrapped(const std::string& start, std::string_view text, std::size_t indentation) {
  constexpr std::size_t kColumns = 80;
  const std::string indent(std::min(indentation, start.size()), ' ');
  std::string lines;
  do {
    const std::string& before = lines.empty() ? start : indent;
    const std::size_t room = kColumns - std::min(before.size(), kColumns - 20);
    std::size_t length = text.size();
    if (length > room) {
      length = text.rfind(' ', room);
      if (length == std::string_view::npos || length == 0) length = text.find(' ', room);
      if (length == std::string_view::npos) length = text.size();
    }
    lines += printable(before) + printable(text.substr(0, length)) + '\n';
    text.remove_prefix(std::min(text.size(), length + 1));
  } while (!text.empty());
  return lines;
}

}  // namespace latchkey
