// Counts the rows of one source whose key other sources hold as well.
//
// It walks over the source's rows part by part, so that a loader's thread can do other work in
// between. It reads only the maps of the other sources, as any reader may: other threads write them
// meanwhile.
#pragma once

#include <cstdint>
#include <vector>

#include "keymap/key_set.h"

namespace latchkey {

class OverlapWalk {
 public:
  struct Shared {
    const KeySet* with;
    std::uint64_t rows;
  };

  // `others`: sources with the same key digests; they and `rows` must outlive the walk.
  OverlapWalk(const KeySetWriter& rows, const std::vector<const KeySet*>& others);

  // Looks at some thousand more rows, which takes a quarter of a millisecond for each other source.
  // Returns false when all rows have been looked at. Only the thread that writes `rows` may call
  // it.
  [[nodiscard]] bool step(Quiescence& quiescence);

  // The counts for the rows looked at so far, one entry for each other source. Exact if nothing
  // changed meanwhile.
  [[nodiscard]] const std::vector<Shared>& shared() const { return shared_; }

 private:
  void look_up();

  const KeySetWriter& rows_;
  std::vector<Shared> shared_;
  std::vector<const Record*> batch_;
  std::size_t part_ = 0;
};

}  // namespace latchkey
