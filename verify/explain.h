// Why a key is answered as it is: the verdict, and all that speaks for and against it.
//
// The verdict is Verifier's own, and the rows are those that it weighed on the way (Sighting), so
// an explanation cannot disagree with the answer of that instant. Every condition that a row fails
// is listed, not just the one that decided. The key itself is never repeated, nor any part of it:
// only what kind of text it is.
#pragma once

#include <string>

#include "verify/verifier.h"

namespace latchkey {

// Rows told of in one explanation; what is beyond is counted.
constexpr std::size_t kExplainedRowsMax = 8;

// Inside a ReadSection. One JSON object (PROTOCOL.md, "why"), telling of the sources in the
// question's terms and of no others.
[[nodiscard]] std::string explain(const Verifier& verifier, const Question& question,
                                  const Now& now);

}  // namespace latchkey
