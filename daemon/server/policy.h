// What a server is given: by what it answers, and whom it asks.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "config/options.h"
#include "verify/rights.h"
#include "verify/verifier.h"

namespace latchkey {

// What answers depend on and a reload may exchange; immutable once published.
struct Policy {
  Verifier verifier;
  CallerRules callers;
  LimitOptions limits;
};

// Asks the databases behind `sources`; calls back, on any thread, when all of them have answered.
// The returned function gives the wait up.
using SyncStarter =
    std::function<std::function<void()>(SourceMask sources, std::function<void()> done)>;

struct ServerHooks {
  SyncStarter start_sync;
  std::function<std::shared_ptr<const std::string>(const Rights&)> status_json;
};

}  // namespace latchkey
