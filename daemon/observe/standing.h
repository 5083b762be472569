// How a source stands and since when: what its loader is about, and how old its answers are. Pure.
#pragma once

#include <cstdint>

#include "keymap/freshness.h"
#include "loader/refresh.h"
#include "verify/source_state.h"

namespace latchkey {

// What the loader of the source's database is about.
struct LoaderStanding {
  Refresh::State state = Refresh::State::kLive;
  std::int64_t for_ns = 0;        // in this state
  std::int64_t fresh_for_ns = 0;  // since answers were last not fresh
};

struct SourceStanding {
  SourceState state;
  std::int64_t for_ns;
};

// `age_ns` as FreshnessStamp::age_ns() gives it.
[[nodiscard]] SourceStanding stand(std::int64_t age_ns, const FreshnessLimits& limits,
                                   const LoaderStanding& loader);

}  // namespace latchkey
