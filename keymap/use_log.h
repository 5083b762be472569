// Which keys were used: from the workers that answer to the loader that writes it down.
//
// Laws. A worker neither waits nor allocates for it, and shares no counter. Each worker has a ring
// of its own for each source whose table wants to know, with that worker at one end and the
// source's loader at the other. Time is cut into ticks as long as what passes between two writings
// to the table: a key costs one place in a ring and one store to its record in each tick in which
// it is used, and one comparison for each further use. Where a ring is full the record is left as
// it was, so that the next use tries again; that is counted.
//
// What is lost is known: a key's time is right to a tick, and uses that wait when the process dies
// are never written.
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
  // Where no source wants to know.
  UseClock() = default;
  explicit UseClock(std::chrono::microseconds resolution) : resolution_us_(resolution.count()) {}

  // Ticks are only compared for equality, so a clock that is set back begins another tick. 32 bits
  // of them last for a century; 0 is no tick.
  [[nodiscard]] UseMoment at(std::int64_t real_us) const {
    if (resolution_us_ == 0) return {};
    return {real_us, static_cast<std::uint32_t>(1 + real_us / resolution_us_)};
  }

 private:
  std::int64_t resolution_us_ = 0;
};

// The digest, and not the record: by the time that it is looked at, the record may have been freed.
struct Use {
  Digest digest;
  std::int64_t real_us;
};

// Of one source.
class UseLog {
 public:
  // Of one ring: 320 KiB.
  static constexpr std::size_t kRoom = 8192;

  explicit UseLog(std::size_t workers);
  UseLog(const UseLog&) = delete;
  UseLog& operator=(const UseLog&) = delete;

  // Before any worker runs. `wake` is called by workers, once in kRoom / 2 uses: it must not block.
  void on_half_full(std::function<void()> wake) { wake_ = std::move(wake); }

  // ---- a worker, inside the ReadSection that the record was found in

  // The holder of this key was let in.
  void note(std::size_t worker, const Record& record, const UseMoment& moment) {
    if (record.used_tick() != moment.tick) push(*rings_[worker], record, moment);
  }

  // ---- the loader

  // Calls `take` for each use that waits.
  template <typename Take>
  void take(Take take) {
    for (const auto& ring : rings_) ring->uses.consume_all(take);
  }
  // Is a ring half full?
  [[nodiscard]] bool crowded() const;

  // Anybody: uses that found their ring full.
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
