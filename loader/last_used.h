// The uses of rows that are not yet written to the table, and the schedule for writing them. Pure:
// the time and the uses go in, batches come out; LastUsedWriter writes them to the database.
#pragma once

#include <boost/multi_index/hashed_index.hpp>
#include <boost/multi_index/member.hpp>
#include <boost/multi_index/sequenced_index.hpp>
#include <boost/multi_index_container.hpp>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "keys/digest.h"

namespace latchkey {

// Counts of one source for the status.
struct LastUsedCounts {
  std::uint64_t written = 0;   // rows
  std::size_t pending = 0;     // rows that wait to be written
  std::uint64_t deferred = 0;  // uses delayed to the key's next use, because a ring was full
  std::uint64_t dropped = 0;   // rows forgotten because too many waited
  std::uint64_t failures = 0;  // of batches; their rows keep waiting
};

// A list in which each row occurs once.
struct UsedRow {
  std::string id;
  std::int64_t real_us = 0;
};
using UsedRows = std::vector<UsedRow>;

// The latest use of each row, in the order of the uses. Bounded: above `limit` rows, the rows used
// longest ago are forgotten.
class PendingUses {
 public:
  explicit PendingUses(std::size_t limit) : limit_(limit) {}

  void add(std::string_view id, std::int64_t real_us);
  // Removes up to `most` rows, those used longest ago.
  [[nodiscard]] UsedRows take(std::size_t most);
  // Returns rows that were taken and could not be written; uses added since are newer.
  void give_back(UsedRows rows);

  [[nodiscard]] std::size_t size() const { return rows_.size(); }
  [[nodiscard]] std::uint64_t dropped() const { return dropped_; }

 private:
  struct IdHash {
    std::size_t operator()(std::string_view id) const { return text_hash(id); }
  };
  using Rows = boost::multi_index_container<
      UsedRow, boost::multi_index::indexed_by<
                   boost::multi_index::sequenced<>,
                   boost::multi_index::hashed_unique<
                       boost::multi_index::member<UsedRow, std::string, &UsedRow::id>, IdHash,
                       std::equal_to<>>>>;

  std::size_t limit_;
  Rows rows_;
  std::uint64_t dropped_ = 0;
};

// Every `flush` a round writes the waiting rows; after failures the next round is delayed more and
// more. Batches are halved while the database refuses them, so that one bad row does not block the
// others. Times are CLOCK_BOOTTIME.
class LastUsedRounds {
 public:
  LastUsedRounds(std::int64_t flush_ns, std::uint64_t seed) : flush_ns_(flush_ns), random_(seed) {}

  static constexpr std::size_t kBatchMax = 1000;  // rows
  static constexpr std::int64_t kBackoffMinNs = 1'000'000'000;
  static constexpr std::int64_t kBackoffMaxNs = 60'000'000'000;

  [[nodiscard]] std::int64_t next_ns() const { return next_ns_; }
  [[nodiscard]] std::size_t batch() const { return batch_; }
  void hurry() { next_ns_ = std::numeric_limits<std::int64_t>::min(); }
  void begun(std::int64_t now_ns) { next_ns_ = now_ns + flush_ns_; }
  void written();
  // `refused`: the number of rows in the batch if the database refused the statement; otherwise 0.
  void failed(std::int64_t now_ns, std::size_t refused);

 private:
  std::int64_t flush_ns_;
  std::mt19937_64 random_;
  std::int64_t next_ns_ = 0;
  std::size_t batch_ = kBatchMax;
  int failures_ = 0;
};

}  // namespace latchkey
