// Parses durations: a number and a unit, "250ms", "5s", "10m", "1h", "2d".
#pragma once

#include <charconv>
#include <chrono>
#include <optional>
#include <string_view>

namespace latchkey {

// Accepts at most 366 days. Returns nullopt if the text is not a duration.
[[nodiscard]] inline std::optional<std::chrono::nanoseconds> parse_duration(std::string_view text) {
  double number = 0;
  const auto [rest, error] =
      std::from_chars(text.data(), text.data() + text.size(), number, std::chars_format::fixed);
  if (error != std::errc() || !(number >= 0)) return std::nullopt;
  const std::string_view unit(rest, static_cast<std::size_t>(text.data() + text.size() - rest));
  double ns = 0;
  if (unit == "us") {
    ns = 1e3;
  } else if (unit == "ms") {
    ns = 1e6;
  } else if (unit == "s") {
    ns = 1e9;
  } else if (unit == "m" || unit == "min") {
    ns = 60e9;
  } else if (unit == "h") {
    ns = 3600e9;
  } else if (unit == "d") {
    ns = 86400e9;
  } else {
    return std::nullopt;
  }
  constexpr double kYear = 366 * 86400e9;
  if (number * ns > kYear) return std::nullopt;
  return std::chrono::nanoseconds(static_cast<std::int64_t>(number * ns));
}

}  // namespace latchkey
