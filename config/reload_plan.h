// What a running daemon takes over from a configuration that was read anew. Pure.
#pragma once

#include <string>
#include <vector>

#include "config/options.h"

namespace latchkey {

struct ReloadPlan {
  Options options;                   // what runs from now on
  std::vector<std::string> restart;  // settings that have changed and need a restart, by name
};

// Limits, the log's level, peppers, JWT secrets and [[allow]] rules are taken over; the rest stays
// as it runs. Throws ConfigError if a rule names a source that does not run yet.
[[nodiscard]] ReloadPlan plan_reload(const Options& running, const Options& fresh);

}  // namespace latchkey
