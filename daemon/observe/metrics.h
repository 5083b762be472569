// The same facts as the status, as Prometheus wants them: names by its conventions
// (prometheus.io/docs/practices/naming), base units, labels of few values. Pure.
#pragma once

#include <string>

#include "daemon/observe/status_inputs.h"

namespace latchkey {

// Of the process, as the kernel counts it.
struct ProcessFacts {
  double resident_bytes = 0;
  double cpu_seconds = 0;
  double open_fds = 0;
  double max_fds = 0;
  double started_unix_s = 0;  // since 1970
};
[[nodiscard]] ProcessFacts read_process_facts();

// Who may read them. Anybody on the host: then they must not tell a caller without `reasons` more
// of the key that it has just asked for than its answer did. So they count answers as they were
// told, and neither reasons, nor sources that spoke, nor whose questions they were.
enum class MetricsReaders { kAnybody, kTrusted };

// Text format 0.0.4.
[[nodiscard]] std::string metrics_text(const StatusInputs& inputs, const ProcessFacts& process,
                                       MetricsReaders readers);

}  // namespace latchkey
