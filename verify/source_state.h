// The state of a source as one word.
#pragma once

#include <cstdint>

#include "keymap/freshness.h"

namespace latchkey {

enum class SourceState {
  kConnecting,   // no connection, and never loaded
  kListening,    // connected, checking that notifications arrive; loaded data ages
  kLoading,      // reading the table for the first time on this connection; loaded data ages
  kFresh,        // answers are fresh, even if the connection was just lost
  kStale,        // connected and receiving changes too slowly: answers are past the bound
  kLost,         // answers are past the bound, and there is no connection
  kUnavailable,  // past max_stale: there are no answers, in any state of the loader
};
[[nodiscard]] const char* source_state_name(SourceState state);

// For callers without access to the connection's state: fresh, stale, unavailable, or loading if
// the source was never loaded.
[[nodiscard]] const char* source_state(std::int64_t age_ns, const FreshnessLimits& limits);

}  // namespace latchkey
