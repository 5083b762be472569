// The facts of a small daemon at a fixed instant, for status and metrics.
#pragma once

#include <array>
#include <string>
#include <vector>

#include "daemon/observe/status_inputs.h"
#include "tests/unit/support/three_sources.h"

namespace latchkey::test {

constexpr std::int64_t kS = 1'000 * kMs;  // ns

// Sources alpha (SHA-256, in first_db, fresh), beta (HMAC, two pepper versions, in second_db,
// stale) and gamma (SHA-256, in second_db, never loaded); two workers.
class ObservedDaemon {
 public:
  ObservedDaemon() {
    alpha.freshness.prove(kBootNs - 2 * kS);
    beta.freshness.prove(kBootNs - 30 * kS);
    inputs.now_boot_ns = kBootNs;
    inputs.started_boot_ns = kBootNs - 3600 * kS;
    inputs.workers = {&workers[0], &workers[1]};
    inputs.accepts = &accepts;
    inputs.connections_max = 4000;
    inputs.policy = &policy;
    inputs.loaders.resize(2);
    // Not in the order of the configuration.
    LoaderStatus& second = inputs.loaders[0];
    second.database = "second_db";
    second.state = Refresh::State::kLive;
    second.since_boot_ns = kBootNs - 7 * kS;
    second.sources.resize(2);
    second.sources[0].name = "gamma";
    second.sources[1].name = "beta";
    LoaderStatus& first = inputs.loaders[1];
    first.database = "first_db";
    first.state = Refresh::State::kLive;
    first.since_boot_ns = kBootNs - 100 * kS;
    first.sources.resize(1);
    first.sources[0].name = "alpha";
    first.sources[0].fresh_since_boot_ns = kBootNs - 90 * kS;
  }
  ObservedDaemon(const ObservedDaemon&) = delete;
  ObservedDaemon& operator=(const ObservedDaemon&) = delete;

  LoaderStatus& first_db() { return inputs.loaders[1]; }
  LoaderStatus& second_db() { return inputs.loaders[0]; }
  SourceStatus& alpha_status() { return first_db().sources[0]; }
  SourceStatus& beta_status() { return second_db().sources[1]; }

  Quiescence quiescence;
  KeySet alpha{"alpha", quiescence}, beta{"beta", quiescence}, gamma{"gamma", quiescence};
  Policy policy{
      Verifier({Digester(), Digester("v1.key", as_bytes(kOldPepper), 5),
                Digester("v2.key", as_bytes(kNewPepper), 3)},
               {{&alpha, {0}, "sha256"}, {&beta, {1, 2}, "hmac-sha256"}, {&gamma, {0}, "sha256"}},
               kLimits),
      CallerRules({}, std::vector<std::string>{"alpha", "beta", "gamma"}, 1000),
      {}};
  std::array<WorkerStats, 2> workers;
  AcceptStats accepts;
  StatusInputs inputs;
};

// Changes every fact that only trusted readers may learn: what callers asked and were found to be
// asking, by source, pepper and uid. Nothing that they were told.
inline void find_other_reasons(ObservedDaemon& daemon) {
  std::uint64_t count = 1;
  for (WorkerStats& worker : daemon.workers) {
    for (Counter& counter : worker.verdicts) counter.add(++count);
    for (auto& source : worker.verdicts_by_source) {
      for (Counter& counter : source) counter.add(++count);
    }
    for (Counter& counter : worker.accepted_by_pepper) counter.add(++count);
  }
  for (auto& [uid, caller] : daemon.inputs.callers) caller.unknown += ++count;
}

}  // namespace latchkey::test
