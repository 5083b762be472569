// Hashes for KeyMap, hostile ones included: the spread of digests decides how fast the map is,
// never its answers. Segments are small here, so that few keys split many of them.
#pragma once

#include "keymap/key_map.h"
#include "tests/unit/support/helpers.h"

namespace latchkey::test {

inline std::uint64_t first_bytes(const Digest& digest) {
  return load_le<std::uint64_t>(digest.bytes.data());
}

// A KeyMap::Hash made from a function for one digest.
template <auto kHash>
void each(std::span<const Digest> digests, std::uint64_t* hashes) {
  for (const Digest& digest : digests) *hashes++ = kHash(digest);
}

struct HashCase {
  const char* name;
  KeyMap::Hash hash;
  std::size_t segment_slots;
  std::size_t keys;  // few enough for the slow hashes
};

inline const HashCase kHashes[] = {
    {"as_it_is", slot_hashes, KeyMap::kSegmentSlots, 6000},
    {"small_segments", slot_hashes, 16, 2000},
    {"constant", each<[](const Digest&) { return std::uint64_t{0}; }>, 16, 150},
    {"all_ones", each<[](const Digest&) { return ~std::uint64_t{0}; }>, 16, 150},
    {"one_segment", each<[](const Digest& d) { return first_bytes(d) & 0xFFFFFFFF; }>, 16, 2000},
    {"two_segments", each<[](const Digest& d) { return first_bytes(d) & 0x80000000FFFFFFFF; }>, 16,
     2000},
    {"deep_segments", each<[](const Digest& d) { return first_bytes(d) & 0x0000000FFFFFFFFF; }>, 16,
     2000},
    {"one_slot", each<[](const Digest& d) { return first_bytes(d) << 16; }>, 16, 2000},
    {"one_slot_of_a_large_segment", each<[](const Digest& d) { return first_bytes(d) << 16; }>,
     KeyMap::kSegmentSlots, 150},
    {"one_tag", each<[](const Digest& d) { return first_bytes(d) & 0xFFFFFFFF0000FFFF; }>, 16,
     2000},
    {"last_slots", each<[](const Digest& d) { return first_bytes(d) | 0xFFFF; }>, 16, 2000},
};

}  // namespace latchkey::test
