// The status reply: one JSON object, for `latchkey status`, dashboards and tests.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "daemon/server.h"
#include "loader/loader.h"

namespace latchkey {

struct StatusInputs {
  std::int64_t now_boot_ns = 0;
  std::int64_t started_boot_ns = 0;
  std::vector<LoaderStatus> loaders;
  std::vector<const WorkerStats*> workers;
  const AcceptStats* accepts = nullptr;
  std::vector<std::pair<uid_t, Admission::Caller>> callers;
  std::size_t log_lines_dropped = 0;
  const Policy* policy = nullptr;
};

// Callers who may not know reasons, or not use all sources, are told how the sources that they may
// use stand, and nothing of others, of databases, or of what other callers got.
[[nodiscard]] std::string status_json(const StatusInputs& inputs, const Rights& rights);

}  // namespace latchkey
