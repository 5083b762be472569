// The process as the kernel counts it (proc(5), getrusage(2)).
#pragma once

namespace latchkey {

// The kernel's figures on this process. read_process_facts() reads them from /proc and by system
// calls; the caller sets `started_unix_s`.
struct ProcessFacts {
  double resident_bytes = 0;
  double cpu_seconds = 0;
  double open_fds = 0;
  double max_fds = 0;
  double started_unix_s = 0;  // since 1970
};
[[nodiscard]] ProcessFacts read_process_facts();

}  // namespace latchkey
