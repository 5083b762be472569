// The status reply: one JSON object, for `latchkey status`, dashboards and tests.
#pragma once

#include <string>

#include "daemon/observe/status_inputs.h"

namespace latchkey {

// Callers who may not know reasons, or not use all sources, are told how the sources that they may
// use stand, and nothing of others, of databases, or of what other callers got.
[[nodiscard]] std::string status_json(const StatusInputs& inputs, const Rights& rights);

}  // namespace latchkey
