// A load by several processes, as applications are: each has connections, threads and memory of its
// own, and all begin to measure at the same instant.
#pragma once

#include <functional>

#include "bench/load/generator.h"
#include "bench/load/keys.h"

namespace latchkey {

// As run_load(), with the connections and the rate divided among `settings.processes`. With more
// than one there is no progress. Must be called while this process has one thread. Throws as
// run_load() does; then all processes have ended.
[[nodiscard]] LoadResult run_processes(const LoadSettings& settings, const KeyTable& keys,
                                       const std::function<void(const Interval&)>& progress);

}  // namespace latchkey
