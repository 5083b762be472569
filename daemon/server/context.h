// What a worker has at hand for those who answer.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <string>

#include "base/clock.h"
#include "daemon/server/stats.h"
#include "keymap/quiescence.h"
#include "keymap/use_log.h"
#include "verify/rights.h"
#include "verify/verifier.h"

namespace latchkey {

// What all connections of one worker share.
struct WorkerContext {
  const Verifier* verifier = nullptr;
  Quiescence::Reader* reader = nullptr;
  WorkerStats* stats = nullptr;
  std::function<Now()> clock;
  std::function<std::shared_ptr<const std::string>(const Rights&)> status_json;

  std::size_t worker = 0;  // its place in each UseLog
  UseClock use_clock;
  // So much work is done for one caller before the others have their turn; a request is not cut in
  // two. Work is counted in keys: what it takes to look a short one up, a tenth of a microsecond.
  static constexpr std::size_t kTurnWorkAlone = 512, kTurnWorkAmongOthers = 128;
  std::size_t turn_work = kTurnWorkAlone;
};

}  // namespace latchkey
