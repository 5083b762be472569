// Counters. Rules: each WorkerStats has one writer, its worker; anybody may read, and sees a value
// that was true a moment ago. Relaxed loads and stores suffice, because no counter says anything
// about another; there is no locked instruction, and no cache line with two writers.
#pragma once

#include <array>
#include <cstdint>

#include "base/counter.h"
#include "base/histogram.h"
#include "latchkey/wire.h"
#include "verify/verifier.h"

namespace latchkey {

struct alignas(64) WorkerStats {
  Counter requests;  // frames understood
  Counter protocol_errors;
  Counter explained;           // why
  Counter refused_no_reasons;  // why, asked by a caller who may not know
  Counter refused_operations;  // asked by a caller whose rule has others
  Counter closed_idle;
  Counter closed_stalled;
  Counter closed_hoarding;  // more replies waited for them than may
  Counter connections_opened;
  Counter connections_closed;
  std::array<Counter, LATCHKEY_VERDICTS> verdicts;  // as found, whatever the caller was told
  std::array<Counter, LATCHKEY_VERDICTS> told;      // as the caller was told
  // As found, by the source whose row spoke; kNoSource: none did. Counted for every key alike, so
  // that a refused one takes no longer than an unknown one.
  static constexpr std::size_t kNoSource = kSourcesMax;
  std::array<std::array<Counter, LATCHKEY_VERDICTS>, kSourcesMax + 1> verdicts_by_source;
  std::array<Counter, kDigestersMax> accepted_by_pepper;  // by Digester::counter()
  // From the moment that bytes were read until the replies to all of them were with the kernel.
  Histogram<Counter> answered_in;

  [[nodiscard]] const Counter& accepted(std::size_t source) const {
    return verdicts_by_source[source][LATCHKEY_VALID];
  }
};

// The acceptor's; its one writer is the worker that accepts.
struct alignas(64) AcceptStats {
  Counter accepted;
  Counter refused_not_allowed;
  Counter refused_overloaded;
  Counter refused_uid_limit;
  Counter refused_no_descriptors;
  Counter accept_errors;
};

}  // namespace latchkey
