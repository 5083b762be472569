// What is known of the daemon at one moment: status, metrics and the service manager's line are
// each a function of it.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "daemon/observe/standing.h"
#include "daemon/server/server.h"
#include "loader/postgres/loader_status.h"

namespace latchkey {

// How reloads went.
struct ReloadReport {
  std::uint64_t succeeded = 0;
  std::uint64_t failed = 0;
  bool under_way = false;
  std::string last_error;                 // empty: the last one succeeded, or there was none
  std::vector<std::string> need_restart;  // settings that the last one found changed and left
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
  bool socket_in_place = true;      // or the service manager keeps it
  std::size_t connections_max = 0;  // in force
  const Policy* policy = nullptr;
};

// A source as its readers and its loader see it.
struct SourceView {
  std::size_t number;  // in configuration order: its route, its bit, its counters
  const Route* route;
  const SourceStatus* status;
  const LoaderStatus* loader;
  std::int64_t age_ns;  // its greatest value if nothing was ever proven
  SourceStanding standing;
};

// In configuration order. Valid as long as `inputs` is.
[[nodiscard]] std::vector<SourceView> source_views(const StatusInputs& inputs);

// "NAME STATE for N s", for people.
[[nodiscard]] std::string standing_text(const SourceView& view);

// Those whose answers are refused for their age, likewise.
[[nodiscard]] std::vector<std::string> unanswered_sources(const StatusInputs& inputs);

}  // namespace latchkey
