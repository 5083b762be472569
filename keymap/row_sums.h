// A summary of a table in 4096 pairs of numbers, independent of the order of rows.
//
// Each row has a 64-bit hash of its relevant columns (loader/audit.h defines them). The hash's
// lowest bits select a bucket, so a difference between two summaries also shows where to look. Sums
// wrap around.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace latchkey {

class RowSums {
 public:
  static constexpr std::size_t kBuckets = 4096;
  struct Bucket {
    std::uint64_t rows = 0;
    std::uint64_t sum = 0;
    friend bool operator==(const Bucket&, const Bucket&) = default;
  };

  [[nodiscard]] static std::size_t bucket_of(std::uint64_t hash) { return hash % kBuckets; }

  void add(std::uint64_t hash) {
    Bucket& bucket = buckets_[bucket_of(hash)];
    ++bucket.rows;
    bucket.sum += hash;
  }
  void remove(std::uint64_t hash) {
    Bucket& bucket = buckets_[bucket_of(hash)];
    --bucket.rows;
    bucket.sum -= hash;
  }
  [[nodiscard]] const Bucket& operator[](std::size_t bucket) const { return buckets_[bucket]; }
  [[nodiscard]] Bucket& operator[](std::size_t bucket) { return buckets_[bucket]; }

 private:
  std::vector<Bucket> buckets_ = std::vector<Bucket>(kBuckets);
};

}  // namespace latchkey
