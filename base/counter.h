// A counter with one writer and any number of reading threads.
#pragma once

#include <atomic>
#include <cstdint>

namespace latchkey {

// A reader may see a slightly old value. Relaxed loads and stores suffice because counters are
// independent of each other; no locked instruction is needed.
class Counter {
 public:
  void add(std::uint64_t count = 1) {
    value_.store(value_.load(std::memory_order_relaxed) + count, std::memory_order_relaxed);
  }
  [[nodiscard]] std::uint64_t get() const { return value_.load(std::memory_order_relaxed); }

 private:
  std::atomic<std::uint64_t> value_{0};
};

}  // namespace latchkey
