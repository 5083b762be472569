#include "client/text.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <ctime>

namespace latchkey {

std::string printable(std::string line) {
  for (char& c : line) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7F) c = '?';
  }
  return line;
}

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
  if (seconds < 1) return std::to_string(std::lround(std::floor(seconds * 1000))) + "ms";
  if (seconds < 60) {
    std::array<char, 16> text{};
    std::snprintf(text.data(), text.size(), seconds < 10 ? "%.1fs" : "%.0fs",
                  std::floor(seconds * 10) / 10);
    return text.data();
  }
  const auto whole = static_cast<std::int64_t>(seconds);
  const auto two = [](std::int64_t large, const char* unit, std::int64_t small, const char* rest) {
    return std::to_string(large) + unit + (small > 0 ? std::to_string(small) + rest : "");
  };
  if (whole < 3600) return two(whole / 60, "m", whole % 60, "s");
  if (whole < 86400) return two(whole / 3600, "h", whole % 3600 / 60, "m");
  return two(whole / 86400, "d", whole % 86400 / 3600, "h");
}

std::string wrapped(const std::string& start, std::string_view text) {
  constexpr std::size_t kColumns = 80;
  const std::size_t room = kColumns - std::min(start.size(), kColumns / 2);
  const std::string indentation(start.size(), ' ');
  std::string lines;
  do {
    std::size_t length = text.size();
    if (length > room) {
      length = text.rfind(' ', room);
      if (length == std::string_view::npos || length == 0) length = text.find(' ', room);
      if (length == std::string_view::npos) length = text.size();
    }
    lines += (lines.empty() ? printable(start) : indentation) +
             printable(std::string(text.substr(0, length))) + '\n';
    text.remove_prefix(std::min(text.size(), length + 1));
  } while (!text.empty());
  return lines;
}

}  // namespace latchkey
