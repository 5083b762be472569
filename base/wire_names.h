// Names of the protocol's numbers (wire.h), identical in JSON, logs, metrics and documents.
#pragma once

#include "latchkey/wire.h"

namespace latchkey {

[[nodiscard]] const char* verdict_name(latchkey_verdict verdict);
[[nodiscard]] const char* error_name(latchkey_error code);
// A sentence for the author of a client.
[[nodiscard]] const char* error_sentence(latchkey_error code);

}  // namespace latchkey
