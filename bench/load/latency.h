// Counts latencies in buckets that grow with the value (log-linear, as in HdrHistogram). The error
// is at most 1.6 % from one nanosecond to hours, in 30 KiB, without allocation or sorting.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>

namespace latchkey {

class LatencyHistogram {
 public:
  void record(std::int64_t ns, std::uint64_t times = 1) {
    const auto value = static_cast<std::uint64_t>(std::max<std::int64_t>(ns, 0));
    counts_[bucket_of(value)] += times;
    count_ += times;
    sum_ += static_cast<double>(value) * static_cast<double>(times);
    max_ = std::max(max_, value);
  }
  void merge(const LatencyHistogram& other) {
    for (std::size_t i = 0; i < counts_.size(); ++i) counts_[i] += other.counts_[i];
    count_ += other.count_;
    sum_ += other.sum_;
    max_ = std::max(max_, other.max_);
  }
  void clear() { *this = {}; }

  [[nodiscard]] std::uint64_t count() const { return count_; }
  [[nodiscard]] std::uint64_t max_ns() const { return max_; }
  [[nodiscard]] double mean_ns() const {
    return count_ == 0 ? 0 : sum_ / static_cast<double>(count_);
  }
  // The value that `share` (0 to 1) of all latencies do not exceed, rounded up to the end of its
  // bucket; zero if there are none.
  [[nodiscard]] std::uint64_t quantile_ns(double share) const {
    const double wanted = share * static_cast<double>(count_);
    std::uint64_t below = 0;
    for (std::size_t i = 0; i < counts_.size(); ++i) {
      below += counts_[i];
      if (below > 0 && static_cast<double>(below) >= wanted) return std::min(max_, upper_end(i));
    }
    return max_;
  }

 private:
  static constexpr unsigned kSubBits = 6;  // 64 buckets for each power of two
  static constexpr std::uint64_t kSub = 1U << kSubBits;

  static std::size_t bucket_of(std::uint64_t value) {
    if (value < kSub) return value;
    const auto shift = static_cast<unsigned>(std::bit_width(value)) - kSubBits - 1;
    return (shift + 1) * kSub + (value >> shift) - kSub;
  }
  static std::uint64_t upper_end(std::size_t bucket) {
    if (bucket < kSub) return bucket;
    const auto shift = static_cast<unsigned>(bucket / kSub - 1);
    return ((kSub + bucket % kSub + 1) << shift) - 1;
  }

  std::array<std::uint64_t, (64 - kSubBits + 1) * kSub> counts_{};
  std::uint64_t count_ = 0;
  std::uint64_t max_ = 0;
  double sum_ = 0;
};

}  // namespace latchkey
