// A latency histogram with fixed buckets from ten microseconds to ten seconds. `Count` is any type
// with add() and get(); use an atomic counter where other threads read.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace latchkey {

// Upper bounds in nanoseconds; the last bucket holds longer times.
constexpr std::array<std::int64_t, 16> kHistogramBoundsNs = {
    10'000,      25'000,      50'000,        100'000,       250'000,    500'000,
    1'000'000,   2'500'000,   5'000'000,     10'000'000,    25'000'000, 50'000'000,
    100'000'000, 500'000'000, 1'000'000'000, 10'000'000'000};

// Not synchronized; for copies that one thread uses.
class PlainCount {
 public:
  void add(std::uint64_t count = 1) { value_ += count; }
  [[nodiscard]] std::uint64_t get() const { return value_; }

 private:
  std::uint64_t value_ = 0;
};

template <typename Count>
struct Histogram {
  std::array<Count, kHistogramBoundsNs.size() + 1> buckets{};  // not cumulative
  Count sum_ns{};

  void add(std::int64_t ns) {
    std::size_t bucket = 0;
    while (bucket < kHistogramBoundsNs.size() && ns > kHistogramBoundsNs[bucket]) ++bucket;
    buckets[bucket].add();
    sum_ns.add(ns > 0 ? static_cast<std::uint64_t>(ns) : 0);
  }
  template <typename Other>
  void add(const Histogram<Other>& other) {
    for (std::size_t i = 0; i < buckets.size(); ++i) buckets[i].add(other.buckets[i].get());
    sum_ns.add(other.sum_ns.get());
  }
};

}  // namespace latchkey
