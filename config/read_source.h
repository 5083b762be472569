// Reads a [[source]] of the configuration.
#pragma once

#include "config/source.h"
#include "config/toml_section.h"

namespace latchkey {

// The names of the settings of a [[source]].
[[nodiscard]] Settings source_settings();
// Throws ConfigError.
[[nodiscard]] SourceConfig read_source(const Section& section);

}  // namespace latchkey
