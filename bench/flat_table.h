// A bare table of digests, the lower bound of a look-up: words and 64-byte lines in huge pages, the
// map's own hash, and look-ups in three passes, so that waits for memory overlap. It is filled
// once; it cannot be changed while it is read, cannot grow, and holds nothing but digests.
#pragma once

#include <algorithm>
#include <cassert>
#include <cstddef>
#include <cstdint>
#include <new>
#include <span>

#include "keymap/key_map.h"
#include "keymap/slab.h"
#include "keys/digest.h"

namespace latchkey::bench {

class FlatTable {
 public:
  // Has room for `digests` different ones.
  explicit FlatTable(std::size_t digests) : capacity_(digests) {
    std::size_t slots = 64;
    while (slots < 2 * digests) slots *= 2;
    mask_ = slots - 1;
    words_ = static_cast<std::uint64_t*>(slab_.allocate(slots * sizeof(std::uint64_t)));
    std::fill_n(words_, slots, std::uint64_t{0});
    lines_ = static_cast<Line*>(slab_.allocate(std::max<std::size_t>(digests, 1) * sizeof(Line)));
  }

  void add(const Digest& digest) {
    assert(size_ < capacity_);
    const Line* line = new (&lines_[size_++]) Line{digest};
    const std::uint64_t hash = slot_hash(digest);
    std::size_t slot = hash & mask_;
    while (words_[slot] != 0) slot = (slot + 1) & mask_;
    words_[slot] = (hash & ~kAddress) | reinterpret_cast<std::uint64_t>(line);
  }

  // Writes the address of each digest's line, or null; the line begins with the digest. At most
  // KeyMap::kBatchMax digests.
  template <typename Found>
  void find(std::span<const Digest> digests, std::span<const Found*> found) const {
    std::uint64_t hashes[KeyMap::kBatchMax];
    std::size_t slots[KeyMap::kBatchMax];
    slot_hashes(digests, hashes);
    for (std::size_t i = 0; i < digests.size(); ++i) {
      slots[i] = hashes[i] & mask_;
      __builtin_prefetch(&words_[slots[i]]);
    }
    for (std::size_t i = 0; i < digests.size(); ++i) {
      slots[i] = candidate(slots[i], hashes[i]);
      __builtin_prefetch(line(slots[i]));
    }
    for (std::size_t i = 0; i < digests.size(); ++i) {
      while (line(slots[i]) != nullptr && !(line(slots[i])->digest == digests[i])) {
        slots[i] = candidate((slots[i] + 1) & mask_, hashes[i]);
      }
      found[i] = reinterpret_cast<const Found*>(line(slots[i]));
    }
  }

 private:
  struct alignas(64) Line {
    Digest digest;
  };
  static constexpr std::uint64_t kAddress = (std::uint64_t{1} << 48) - 1;
  // The next slot that is empty or has a matching tag.
  [[nodiscard]] std::size_t candidate(std::size_t slot, std::uint64_t hash) const {
    while (words_[slot] != 0 && ((words_[slot] ^ hash) & ~kAddress) != 0) slot = (slot + 1) & mask_;
    return slot;
  }
  [[nodiscard]] const Line* line(std::size_t slot) const {
    return reinterpret_cast<const Line*>(words_[slot] & kAddress);
  }

  Slab slab_;
  std::size_t capacity_, size_ = 0;
  std::size_t mask_ = 0;
  std::uint64_t* words_ = nullptr;
  Line* lines_ = nullptr;
};

}  // namespace latchkey::bench
