// One word for the state of a source.
#include "verify/source_state.h"
#include "daemon/observe/standing.h"

#include <gtest/gtest.h>

#include <limits>

namespace latchkey {
namespace {

constexpr std::int64_t kS = 1'000'000'000;
constexpr FreshnessLimits kLimits{.bound_ns = 5 * kS, .max_stale_ns = 100 * kS};
constexpr std::int64_t kNever = std::numeric_limits<std::int64_t>::max();
using State = Refresh::State;

TEST(SourceState, CombinesAgeAndWhatTheLoaderIsAbout) {
  const struct {
    std::int64_t age_ns;
    State loader;
    const char* state;
    std::int64_t for_ns;  // with the loader 20 s in its state, and fresh for 300 s
  } cases[] = {
      {kNever, State::kConnecting, "connecting", 20 * kS},
      {kNever, State::kListening, "listening", 20 * kS},
      {kNever, State::kLoading, "loading", 20 * kS},
      {kNever, State::kLive, "loading", 20 * kS},
      {kNever, State::kLost, "connecting", 20 * kS},
      {0, State::kLive, "fresh", 300 * kS},
      {5 * kS, State::kLive, "fresh", 300 * kS},  // the bound itself is fresh
      {5 * kS, State::kLost, "fresh", 300 * kS},  // the answers' age counts
      {5 * kS + 1, State::kLive, "stale", 1},
      {8 * kS, State::kLive, "stale", 3 * kS},
      {8 * kS, State::kLost, "lost", 3 * kS},
      {90 * kS, State::kLost, "lost", 20 * kS},  // the loader's state is only 20 s old
      {90 * kS, State::kConnecting, "lost", 20 * kS},
      {90 * kS, State::kListening, "listening", 20 * kS},
      {90 * kS, State::kLoading, "loading", 20 * kS},
      {100 * kS, State::kLost, "lost", 20 * kS},
      {100 * kS + 7, State::kLost, "unavailable", 7},
      {160 * kS, State::kLoading, "unavailable", 60 * kS},
      {160 * kS, State::kLive, "unavailable", 60 * kS},
  };
  for (const auto& c : cases) {
    const SourceStanding standing =
        stand(c.age_ns, kLimits, {.state = c.loader, .for_ns = 20 * kS, .fresh_for_ns = 300 * kS});
    EXPECT_STREQ(source_state_name(standing.state), c.state)
        << c.age_ns << " " << state_name(c.loader);
    EXPECT_EQ(standing.for_ns, c.for_ns) << c.age_ns << " " << state_name(c.loader);
  }
}

TEST(SourceState, TellsOutsidersOfAnswersOnly) {
  EXPECT_STREQ(source_state(kNever, kLimits), "loading");
  EXPECT_STREQ(source_state(0, kLimits), "fresh");
  EXPECT_STREQ(source_state(6 * kS, kLimits), "stale");
  EXPECT_STREQ(source_state(101 * kS, kLimits), "unavailable");
}

}  // namespace
}  // namespace latchkey
