// A [[source]] of the configuration: from TOML to a SourceConfig.
#pragma once

#include "config/source.h"
#include "config/toml_section.h"

namespace latchkey {

// The names of its settings.
[[nodiscard]] Settings source_settings();
// Throws ConfigError.
[[nodiscard]] SourceConfig read_source(const Section& section);

}  // namespace latchkey
