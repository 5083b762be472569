// Names of the numbers on the wire (wire.h), the same in JSON, logs, metrics and documents.
#pragma once

#include "latchkey/wire.h"

namespace latchkey {

[[nodiscard]] const char* verdict_name(latchkey_verdict verdict);
[[nodiscard]] const char* error_name(latchkey_error code);
// A sentence for whoever wrote the client.
[[nodiscard]] const char* error_sentence(latchkey_error code);

}  // namespace latchkey
