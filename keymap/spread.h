// Sizes tables that are partitioned by the highest bits of hashes, for an expected number of keys.
#pragma once

#include <cmath>
#include <cstddef>

namespace latchkey {

// The number of hashes per part varies around the average: one part out of thirty thousand exceeds
// it by four standard deviations.
inline std::size_t with_spread(std::size_t average) {
  return average + static_cast<std::size_t>(4 * std::sqrt(static_cast<double>(average)));
}

// Number of bits that select a part, so that no part gets more than `part_max` keys.
inline unsigned depth_for(std::size_t keys, std::size_t part_max, unsigned depth_max) {
  unsigned depth = 0;
  while (depth < depth_max && with_spread(keys >> depth) > part_max) ++depth;
  return depth;
}

}  // namespace latchkey
