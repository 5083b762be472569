// Computes the settings that a running daemon takes over from a reloaded configuration.
#pragma once

#include <string>
#include <vector>

#include "config/options.h"

namespace latchkey {

struct ReloadPlan {
  Options options;                   // in effect after the reload
  std::vector<std::string> restart;  // names of changed settings that need a restart
};

// Limits, the log level, JWT secrets and [[allow]] rules are taken over; the daemon also reads the
// pepper files anew. All other settings keep their running values. Throws ConfigError if a rule
// names a source that is not running yet.
[[nodiscard]] ReloadPlan plan_reload(const Options& running, const Options& fresh);

}  // namespace latchkey
