// The state of a source and its duration, from the loader's state and the age of its answers.
#pragma once

#include <cstdint>

#include "keymap/freshness.h"
#include "loader/refresh.h"
#include "verify/source_state.h"

namespace latchkey {

// The state of the loader of the source's database.
struct LoaderStanding {
  Refresh::State state = Refresh::State::kLive;
  std::int64_t for_ns = 0;        // time in this state
  std::int64_t fresh_for_ns = 0;  // since answers were last not fresh
};

struct SourceStanding {
  SourceState state;
  std::int64_t for_ns;
};

// `age_ns` is the result of FreshnessStamp::age_ns().
[[nodiscard]] SourceStanding stand(std::int64_t age_ns, const FreshnessLimits& limits,
                                   const LoaderStanding& loader);

}  // namespace latchkey
