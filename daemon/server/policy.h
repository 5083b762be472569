// The inputs of a server: the policy of its answers, and its hooks.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "config/options.h"
#include "verify/rights.h"
#include "verify/verifier.h"

namespace latchkey {

// The parts of an answer's inputs that a reload may replace. Immutable once published.
struct Policy {
  Verifier verifier;
  CallerRules callers;
  LimitOptions limits;
};

// Asks the databases of `sources`, and calls `done` on any thread when all of them have answered.
// The returned function abandons the wait.
using SyncStarter =
    std::function<std::function<void()>(SourceMask sources, std::function<void()> done)>;

struct ServerHooks {
  SyncStarter start_sync;
  std::function<std::shared_ptr<const std::string>(const Rights&)> status_json;
};

}  // namespace latchkey
