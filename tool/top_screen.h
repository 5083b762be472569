// What `latchkey top` shows, as lines of text: a function of two status reports and the time
// between them. Pure.
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
  const nlohmann::ordered_json* now = nullptr;     // as the status reply has it
  const nlohmann::ordered_json* before = nullptr;  // null: nothing to compare with yet
  double seconds = 0;                              // between them
};

// Most important first: a screen that is too short loses callers and memory, not trouble.
[[nodiscard]] std::vector<ScreenLine> top_screen(const TopInputs& inputs, std::size_t columns);

// How many a second, from two readings of a counter; nothing if it went back (a restart).
[[nodiscard]] std::optional<double> per_second(double before, double now, double seconds);

// The time within which `share` of the answers were given, from `le_s` (upper bounds) and the
// counts of each bucket between two reports; infinite if longer than the last bound, nothing if
// there were none.
[[nodiscard]] std::optional<double> quantile_s(const std::vector<double>& le_s,
                                               const std::vector<double>& counts, double share);

}  // namespace latchkey
