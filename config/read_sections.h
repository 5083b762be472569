// Reads all sections of the configuration except [[source]]. All functions throw ConfigError.
#pragma once

#include "config/conninfo.h"
#include "config/options.h"
#include "config/toml_section.h"

namespace latchkey {

void read_listen(const Section& section, ListenOptions& listen);
void read_metrics(const Section& section, MetricsOptions& metrics);
void read_limits(const Section& section, LimitOptions& limits);
void read_freshness(const Section& section, FreshnessOptions& freshness);
void read_last_used(const Section& section, LastUsedOptions& last_used);
[[nodiscard]] DatabaseOptions read_database(const Section& section,
                                            const ReadConninfo& read_conninfo);
[[nodiscard]] AllowOptions read_allow(const Section& section);

}  // namespace latchkey
