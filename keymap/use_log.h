// Passes key uses from workers, which answer requests, to the loader, which writes them to the
// table.
//
// Laws. A worker neither waits nor allocates here, and shares no counter. For each source that
// records uses, each worker has its own ring; the worker pushes and the source's loader pops. Time
// is divided into ticks as long as the interval between two writes to the table. In each tick in
// which a key is used, it costs one place in a ring and one store to its record, and each further
// use costs one comparison. If a ring is full, the record stays unmarked, so that the next use
// tries again; these uses are counted.
//
// Known losses: a key's time is exact to one tick, and uses still queued when the process dies are
// never written.
#pragma once

#include <atomic>
#include <boost/lockfree/spsc_queue.hpp>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "keymap/record.h"
#include "keys/digest.h"

namespace latchkey {

// One reading of the clock serves a whole batch.
struct UseMoment {
  std::int64_t real_us = 0;  // CLOCK_REALTIME
  std::uint32_t tick = 0;
};

class UseClock {
 public:
  // For configurations in which no source records uses.
  UseClock() = default;
  explicit UseClock(std::chrono::microseconds resolution) : resolution_us_(resolution.count()) {}

  // Ticks are compared only for equality, so setting the clock back starts another tick. 32 bits of
  // ticks last for a century; 0 is not a tick.
  [[nodiscard]] UseMoment at(std::int64_t real_us) const {
    if (resolution_us_ == 0) return {};
    return {real_us, static_cast<std::uint32_t>(1 + real_us / resolution_us_)};
  }

 private:
  std::int64_t resolution_us_ = 0;
};

// Holds the digest, not the record, because the record may be freed before the loader reads it.
struct Use {
  Digest digest;
  std::int64_t real_us;
};

// The uses of one source's keys.
class UseLog {
 public:
  // Places per ring: 320 KiB.
  static constexpr std::size_t kRoom = 8192;

  explicit UseLog(std::size_t workers);
  UseLog(const UseLog&) = delete;
  UseLog& operator=(const UseLog&) = delete;

  // Call before any worker runs. Workers call `wake` once per kRoom / 2 uses; it must not block.
  void on_half_full(std::function<void()> wake) { wake_ = std::move(wake); }

  // ---- a worker, inside the ReadSection that found the record

  // The holder of this key was admitted.
  void note(std::size_t worker, const Record& record, const UseMoment& moment) {
    if (record.used_tick() != moment.tick) push(*rings_[worker], record, moment);
  }

  // ---- the loader

  // Calls `take` for each queued use.
  template <typename Take>
  void take(Take take) {
    for (const auto& ring : rings_) ring->uses.consume_all(take);
  }
  // True if a ring is half full.
  [[nodiscard]] bool crowded() const;

  // Any thread: number of uses that found their ring full.
  [[nodiscard]] std::uint64_t deferred() const;

 private:
  struct alignas(64) Ring {
    Ring() : uses(kRoom) {}
    boost::lockfree::spsc_queue<Use> uses;
    std::size_t pushed = 0;
    std::atomic<std::uint64_t> deferred{0};  // one writer
  };

  void push(Ring& ring, const Record& record, const UseMoment& moment);

  std::vector<std::unique_ptr<Ring>> rings_;
  std::function<void()> wake_;
};

}  // namespace latchkey
