// How a source stands, in one word. Pure.
#pragma once

#include <cstdint>

#include "keymap/freshness.h"

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

// For whoever is told nothing of databases: fresh, stale, unavailable, or (never loaded) loading.
[[nodiscard]] const char* source_state(std::int64_t age_ns, const FreshnessLimits& limits);

}  // namespace latchkey
