// The objects of a worker that its connections use to answer.
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

// Shared by all connections of one worker.
struct WorkerContext {
  const Verifier* verifier = nullptr;
  Quiescence::Reader* reader = nullptr;
  WorkerStats* stats = nullptr;
  std::function<Now()> clock;
  std::function<std::shared_ptr<const std::string>(const Rights&)> status_json;

  std::size_t worker = 0;  // the worker's index in each UseLog
  UseClock use_clock;
  // The work of one turn, and of the turns that are answered together; a request is never split.
  // The unit is the look-up of a short key, a tenth of a microsecond.
  static constexpr std::size_t kTurnWorkAlone = 512, kTurnWorkAmongOthers = 128;
  std::size_t turn_work = kTurnWorkAlone;
};

}  // namespace latchkey
