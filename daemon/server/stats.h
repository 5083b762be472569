// Counters. Each WorkerStats has one writer, its worker; any thread may read, and reads a value
// that was correct a moment ago. Relaxed loads and stores suffice, because no counter implies
// anything about another. There is no locked instruction, and no cache line with two writers.
#pragma once

#include <array>
#include <cstdint>

#include "base/counter.h"
#include "base/histogram.h"
#include "latchkey/wire.h"
#include "verify/telling.h"

namespace latchkey {

struct alignas(64) WorkerStats : VerdictStats {
  Counter requests;  // valid requests
  Counter protocol_errors;
  Counter explained;           // `why` requests answered
  Counter refused_no_reasons;  // `why` requests of callers without the right to reasons
  Counter refused_operations;  // requests of callers whose rule does not permit the operation
  Counter closed_idle;
  Counter closed_stalled;
  Counter closed_hoarding;  // closed because the unread replies exceeded the quota
  Counter connections_opened;
  Counter connections_closed;
  // From noticing that a connection is readable (UnixConnection::received_ns_) until the kernel has
  // the replies to all requests read since. For a request that arrives in parts, the time starts
  // with the last part. `sync` is not included.
  Histogram<Counter> answered_in;
};

// Counters of the acceptor. The only writer is the worker that accepts.
struct alignas(64) AcceptStats {
  Counter accepted;
  Counter refused_not_allowed;
  Counter refused_overloaded;
  Counter refused_uid_limit;
  Counter refused_no_descriptors;
  Counter accept_errors;
};

}  // namespace latchkey
