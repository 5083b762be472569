// The same facts as the status, as Prometheus wants them: names by its conventions
// (prometheus.io/docs/practices/naming), base units, labels of few values. Pure.
#pragma once

#include <string>

#include "daemon/status_inputs.h"

namespace latchkey {

// Of the process, as the kernel counts it.
struct ProcessFacts {
  double resident_bytes = 0;
  double cpu_seconds = 0;
  double open_fds = 0;
  double max_fds = 0;
  double now_unix_s = 0;  // the clock on the wall
};
[[nodiscard]] ProcessFacts read_process_facts();

// Text format 0.0.4.
[[nodiscard]] std::string metrics_text(const StatusInputs& inputs, const ProcessFacts& process);

}  // namespace latchkey
