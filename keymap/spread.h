// How a table of hashes is laid out in parts, chosen by the hashes' highest bits, for an expected
// number of keys.
#pragma once

#include <cmath>
#include <cstddef>

namespace latchkey {

// Hashes that agree in their highest bits are not exactly as many as on average: four standard
// deviations more in one part out of thirty thousand.
inline std::size_t with_spread(std::size_t average) {
  return average + static_cast<std::size_t>(4 * std::sqrt(static_cast<double>(average)));
}

// The number of bits that choose a part, so that none gets more than `part_max` of the keys.
inline unsigned depth_for(std::size_t keys, std::size_t part_max, unsigned depth_max) {
  unsigned depth = 0;
  while (depth < depth_max && with_spread(keys >> depth) > part_max) ++depth;
  return depth;
}

}  // namespace latchkey
