// The status reply: one JSON object, for `latchkey status`, dashboards and tests.
#pragma once

#include <string>

#include "daemon/observe/status_inputs.h"

namespace latchkey {

// Callers without the right to reasons or to all sources receive only the states of the sources
// that they may use: nothing about other sources, databases, or the answers to other callers.
[[nodiscard]] std::string status_json(const StatusInputs& inputs, const Rights& rights);

}  // namespace latchkey
