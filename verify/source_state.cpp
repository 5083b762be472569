#include "verify/source_state.h"

#include <limits>

namespace latchkey {

const char* source_state_name(SourceState state) {
  switch (state) {
    case SourceState::kConnecting: return "connecting";
    case SourceState::kListening: return "listening";
    case SourceState::kLoading: return "loading";
    case SourceState::kFresh: return "fresh";
    case SourceState::kStale: return "stale";
    case SourceState::kLost: return "lost";
    case SourceState::kUnavailable: return "unavailable";
  }
  return "";
}

const char* source_state(std::int64_t age_ns, const FreshnessLimits& limits) {
  const auto state = age_ns == std::numeric_limits<std::int64_t>::max() ? SourceState::kLoading
                     : age_ns > limits.max_stale_ns                     ? SourceState::kUnavailable
                     : age_ns > limits.bound_ns                         ? SourceState::kStale
                                                                        : SourceState::kFresh;
  return source_state_name(state);
}

}  // namespace latchkey
