// A counter with one writer, which any thread may read.
#pragma once

#include <atomic>
#include <cstdint>

namespace latchkey {

// A reader sees a value that was true a moment ago. Relaxed loads and stores suffice, because no
// counter says anything about another; there is no locked instruction.
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
