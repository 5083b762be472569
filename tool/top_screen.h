// Computes the lines of text that `latchkey top` shows, from two status reports and the time
// between them only.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

namespace latchkey {

struct ScreenLine {
  enum class Look { kPlain, kTitle, kHeading, kTrouble };
  std::string text;  // printable, no longer than the screen is wide
  Look look = Look::kPlain;
};

struct TopInputs {
  const nlohmann::ordered_json* now = nullptr;     // the status reply
  const nlohmann::ordered_json* before = nullptr;  // the previous one; null: there is none yet
  double seconds = 0;                              // between the two
};

// The most important lines come first: a screen that is too short omits callers and memory, not
// problems.
[[nodiscard]] std::vector<ScreenLine> top_screen(const TopInputs& inputs, std::size_t columns);

// The rate per second, from two readings of a counter; nullopt if the counter decreased (a
// restart).
[[nodiscard]] std::optional<double> per_second(double before, double now, double seconds);

// The time within which `share` of the answers were given, from `le_s` (upper bounds) and the
// counts of each bucket between two reports. Infinite if it is longer than the last bound; nullopt
// if there were no answers.
[[nodiscard]] std::optional<double> quantile_s(const std::vector<double>& le_s,
                                               const std::vector<double>& counts, double share);

}  // namespace latchkey
