// Counters. Rules: each WorkerStats has one writer, its worker; anybody may read, and sees a value
// that was true a moment ago. Relaxed loads and stores suffice, because no counter says anything
// about another; there is no locked instruction, and no cache line with two writers.
#pragma once

#include <array>
#include <cstdint>

#include "base/counter.h"
#include "base/histogram.h"
#include "latchkey/wire.h"
#include "verify/telling.h"

namespace latchkey {

struct alignas(64) WorkerStats : VerdictStats {
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
  // From the moment that bytes were read until the replies to all of them were with the kernel.
  Histogram<Counter> answered_in;
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
