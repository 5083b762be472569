// A snapshot of the daemon. The status, the metrics and the service manager's status line are
// computed from it.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "daemon/observe/standing.h"
#include "daemon/server/server.h"
#include "loader/postgres/loader_status.h"

namespace latchkey {

// The results of reloads.
struct ReloadReport {
  std::uint64_t succeeded = 0;
  std::uint64_t failed = 0;
  bool under_way = false;
  std::string last_error;                 // empty: the last one succeeded, or there was none
  std::vector<std::string> need_restart;  // changed settings that the last reload did not apply
};

struct StatusInputs {
  std::int64_t now_boot_ns = 0;
  std::int64_t started_boot_ns = 0;
  std::vector<LoaderStatus> loaders;
  std::vector<const WorkerStats*> workers;
  const AcceptStats* accepts = nullptr;
  std::vector<std::pair<uid_t, Admission::Caller>> callers;
  std::uint64_t log_lines_dropped = 0;
  ReloadReport reload;
  bool socket_in_place = true;      // also true if the service manager made the socket
  std::size_t connections_max = 0;  // the limit in effect
  const Policy* policy = nullptr;
};

// The readers' and the loader's facts on one source.
struct SourceView {
  std::size_t number;  // in configuration order: index of its route, its bit and its counters
  const Route* route;
  const SourceStatus* status;
  const LoaderStatus* loader;
  std::int64_t age_ns;  // the largest value if nothing was ever proven
  SourceStanding standing;
};

// In configuration order. The result points into `inputs`.
[[nodiscard]] std::vector<SourceView> source_views(const StatusInputs& inputs);

// "NAME STATE for N s", for people.
[[nodiscard]] std::string standing_text(const SourceView& view);

// The sources that give no answers because of their age, each as standing_text().
[[nodiscard]] std::vector<std::string> unanswered_sources(const StatusInputs& inputs);

}  // namespace latchkey
