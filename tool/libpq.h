// Loads libpq on demand: when a configuration is read, not when the program starts.
#pragma once

#include <string>

#include "config/conninfo.h"

namespace latchkey {

// Throws ConfigError if there is no libpq on this host.
[[nodiscard]] ConninfoFacts read_conninfo(const std::string& conninfo);

}  // namespace latchkey
