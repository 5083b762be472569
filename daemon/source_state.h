// How a source stands, in one word and since when: what its loader is about, and how old its
// answers are. Pure.
#pragma once

#include <cstdint>

#include "keymap/freshness.h"
#include "loader/refresh.h"

namespace latchkey {

enum class SourceState {
  kConnecting,   // never loaded yet: no connection
  kListening,    // connected, proving that notifications arrive; what was known ages
  kLoading,      // reading the table for the first time on this connection; likewise
  kFresh,        // answers are fresh, even if the connection has just gone
  kStale,        // connected, told of changes, but too slowly: answers are past the bound
  kLost,         // answers are past the bound, and there is no connection
  kUnavailable,  // past max_stale: there are no answers, whatever the loader is about
};
[[nodiscard]] const char* source_state_name(SourceState state);

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

// For whoever is told nothing of databases: fresh, stale, unavailable, or (never loaded) loading.
[[nodiscard]] const char* source_state(std::int64_t age_ns, const FreshnessLimits& limits);

}  // namespace latchkey
