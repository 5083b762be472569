// The facts of the status as Prometheus metrics: names by its conventions
// (prometheus.io/docs/practices/naming), base units, labels with few values.
#pragma once

#include <string>

#include "daemon/observe/process_facts.h"
#include "daemon/observe/status_inputs.h"

namespace latchkey {

// The readers of the metrics. With kAnybody, every user of the host may read them, so they must not
// tell a caller without `reasons` more about the key that it has just asked for than its answer
// did. They then count answers as told, and include neither reasons, nor deciding sources, nor the
// callers of unknown keys.
enum class MetricsReaders { kAnybody, kTrusted };

// Text format 0.0.4. Depends on its arguments only.
[[nodiscard]] std::string metrics_text(const StatusInputs& inputs, const ProcessFacts& process,
                                       MetricsReaders readers);

}  // namespace latchkey
