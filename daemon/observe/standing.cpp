#include "daemon/observe/standing.h"

#include <algorithm>
#include <limits>

namespace latchkey {
namespace {

// The state of a source that gives answers, but no fresh ones.
SourceState outdated_state(Refresh::State loader) {
  switch (loader) {
    case Refresh::State::kListening: return SourceState::kListening;
    case Refresh::State::kLoading: return SourceState::kLoading;
    case Refresh::State::kLive: return SourceState::kStale;
    case Refresh::State::kConnecting:
    case Refresh::State::kLost: break;
  }
  return SourceState::kLost;
}

// The state of a source that was never loaded.
SourceState first_state(Refresh::State loader) {
  switch (loader) {
    case Refresh::State::kListening: return SourceState::kListening;
    case Refresh::State::kLoading:
    case Refresh::State::kLive: return SourceState::kLoading;
    case Refresh::State::kConnecting:
    case Refresh::State::kLost: break;
  }
  return SourceState::kConnecting;
}

}  // namespace

SourceStanding stand(std::int64_t age_ns, const FreshnessLimits& limits,
                     const LoaderStanding& loader) {
  if (age_ns == std::numeric_limits<std::int64_t>::max()) {
    return {first_state(loader.state), loader.for_ns};
  }
  if (age_ns > limits.max_stale_ns) {
    return {SourceState::kUnavailable, age_ns - limits.max_stale_ns};
  }
  if (age_ns <= limits.bound_ns) return {SourceState::kFresh, loader.fresh_for_ns};
  // The state needs both the loader's state and an age past the bound: it began with the later one.
  return {outdated_state(loader.state), std::min(loader.for_ns, age_ns - limits.bound_ns)};
}

}  // namespace latchkey
