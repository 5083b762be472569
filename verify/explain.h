// Explains a verdict: the verdict itself, and all conditions for and against it.
//
// The verdict comes from Verifier, and the rows are those that Verifier weighed for it (Sighting),
// so an explanation cannot disagree with the answer of that instant. Every condition that a row
// fails is listed, not just the deciding one. An explanation describes the form of the key. It does
// not contain the key or a part of it, except a prefix that the application does not store.
#pragma once

#include <string>

#include "verify/verifier.h"

namespace latchkey {

// Rows listed in one explanation; the rows beyond are counted.
constexpr std::size_t kExplainedRowsMax = 8;

// Must be called inside a ReadSection. Returns one JSON object (PROTOCOL.md, "why") that covers
// only the sources in the question's terms.
[[nodiscard]] std::string explain(const Verifier& verifier, const Question& question,
                                  const Now& now);

}  // namespace latchkey
