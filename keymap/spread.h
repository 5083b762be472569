// How many of the hashes that a table is laid out for may fall into one of its parts.
#pragma once

#include <cmath>
#include <cstddef>

namespace latchkey {

// Hashes that agree in their highest bits are not exactly as many as on average: four standard
// deviations more in one part out of thirty thousand.
inline std::size_t with_spread(std::size_t average) {
  return average + static_cast<std::size_t>(4 * std::sqrt(static_cast<double>(average)));
}

}  // namespace latchkey
