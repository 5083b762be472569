// A load: threads with connections each, that ask as fast as answers come (closed loop) or at a
// rate that does not care how slowly they come (open loop), and check every answer.
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
  unsigned depth = 1;  // requests in flight on each connection, at most
  unsigned batch = 1;  // keys in each request
  unsigned threads = 1;
  std::vector<unsigned> processors;  // threads are pinned to these, in turn; empty: not pinned
  std::chrono::milliseconds warm_up{1000};
  std::chrono::milliseconds duration{10'000};
  double rate = 0;  // requests a second in all; 0: closed loop
  KeyChoice choice;
};

struct Interval {
  double begin_s = 0;  // since the end of the warm-up
  std::uint64_t requests = 0;
  LatencyHistogram latencies;
};

struct LoadResult {
  double seconds = 0;
  std::uint64_t requests = 0, keys = 0;
  // In an open loop from the moment at which a request was to be sent, whether or not it could be:
  // so what waited behind a slow answer counts (no coordinated omission).
  LatencyHistogram latencies;
  std::vector<Interval> intervals;  // of a tenth of the duration, but a second at most
  std::uint64_t not_sent = 0;       // open loop: still waiting for a free place at the end
};

// Blocks until it is over. `progress` is called about once an interval, from the calling thread.
// Throws WrongAnswer, or std::runtime_error for what cannot be connected to or stops answering.
[[nodiscard]] LoadResult run_load(const LoadSettings& settings, const KeyTable& keys,
                                  const std::function<void(const Interval&)>& progress);

}  // namespace latchkey
