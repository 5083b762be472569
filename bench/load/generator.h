// A load: threads with connections that ask as fast as answers arrive (closed loop) or at a rate
// that is independent of the answers (open loop), and check every answer.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "bench/load/keys.h"
#include "bench/load/latency.h"
#include "bench/load/peer.h"

namespace latchkey {

struct LoadSettings {
  std::string socket;
  PeerOptions peer;
  unsigned connections = 16;
  unsigned depth = 1;                // requests in flight on each connection, at most
  unsigned batch = 1;                // keys in each request
  unsigned threads = 1;              // of each process
  unsigned processes = 1;            // see run_processes()
  std::vector<unsigned> processors;  // threads are pinned to these, in turn; empty: not pinned
  std::chrono::milliseconds warm_up{1000};
  std::chrono::milliseconds duration{10'000};
  double rate = 0;  // requests per second in total; 0: closed loop
  KeyChoice choice;
  // Called once when all connections are open, and returns the time at which the measurement
  // begins, by the steady clock; empty: after the warm-up.
  std::function<std::int64_t()> agree_on_begin = {};
};

// The time at the end of a warm-up that begins now, by the steady clock.
[[nodiscard]] std::int64_t begin_after(std::chrono::milliseconds warm_up);

struct Interval {
  double begin_s = 0;  // since the end of the warm-up
  std::uint64_t requests = 0;
  LatencyHistogram latencies;
};

struct LoadResult {
  double seconds = 0;
  std::uint64_t requests = 0, keys = 0;
  // In an open loop, a latency starts at the due time of the request, even if it could not be sent
  // then: the wait behind a slow answer counts (no coordinated omission).
  LatencyHistogram latencies;
  std::vector<Interval> intervals;  // each a tenth of the duration, at most a second
  std::uint64_t not_sent = 0;       // open loop: requests that were still unsent at the end
};

// Blocks until the load is over; makes `settings.threads` threads. Calls `progress` about once per
// interval, on the calling thread. Throws WrongAnswer, or std::runtime_error if a server cannot be
// reached or stops answering.
[[nodiscard]] LoadResult run_load(const LoadSettings& settings, const KeyTable& keys,
                                  const std::function<void(const Interval&)>& progress);

}  // namespace latchkey
