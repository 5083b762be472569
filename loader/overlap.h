// How many rows of one source hold a key that other sources hold as well.
//
// A walk over the source's rows, part by part, so that a loader's thread can do other things in
// between. Of the other sources only the maps are looked at, as any reader may: other threads
// write them meanwhile.
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

  // `others` are sources that digest keys in the same way; they and `rows` outlive the walk.
  OverlapWalk(const KeySetWriter& rows, const std::vector<const KeySet*>& others);

  // Looks at some thousand rows more, which takes a quarter of a millisecond for each other. False
  // when all have been looked at. Only the thread that writes `rows` may call it.
  [[nodiscard]] bool step(Quiescence& quiescence);

  // Of the rows looked at so far, one entry for each of the others. Exact if nothing changed
  // meanwhile.
  [[nodiscard]] const std::vector<Shared>& shared() const { return shared_; }

 private:
  void look_up();

  const KeySetWriter& rows_;
  std::vector<Shared> shared_;
  std::vector<const Record*> batch_;
  std::size_t part_ = 0;
};

}  // namespace latchkey
