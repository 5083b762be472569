// The audit: does the table hold what the map holds?
//
// PostgreSQL hashes every row (digest_sql); we have hashed every row as it was read, over the same
// bytes. Both are summed up in RowSums and compared, which tells of whatever no trigger told of. On
// a table that changes all the time some sums differ because a change came in between; a second
// look at the rows of those buckets, leaving out those that were told of, decides.
//
// Pure: what came from the database goes in, what is wrong comes out.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "keymap/key_set.h"

namespace latchkey {

// Rows that can never match a presented key (a digest of the wrong length, say) stand in no map.
// The table has them all the same.
class UnusableRows {
 public:
  // A row as it is now; or it has become usable, or is gone.
  void set(std::string_view id, std::uint64_t hash);
  void erase(std::string_view id);

  // The whole table: replaces what was known when it is complete.
  void begin_load() { abandon_load(); }
  void load(std::string_view id, std::uint64_t hash) { staged_.emplace(id, hash); }
  void finish_load();
  void abandon_load() { staged_ = {}; }

  [[nodiscard]] const RowSums& sums() const { return sums_; }
  // Zero: not here.
  [[nodiscard]] std::uint64_t hash_of(std::string_view id) const;
  [[nodiscard]] const std::unordered_map<std::string, std::uint64_t>& rows() const { return rows_; }

 private:
  std::unordered_map<std::string, std::uint64_t> rows_;
  std::unordered_map<std::string, std::uint64_t> staged_;
  RowSums sums_;
};

// One audit of one source, from the digest that was asked for to what is to be said of it.
class Audit {
 public:
  static constexpr std::size_t kToldMax = 100'000;       // ids; past this nothing can be told apart
  static constexpr std::size_t kToldBytesMax = 8 << 20;  // of these; likewise
  static constexpr std::size_t kRowsMax = 200'000;       // rows of the second look
  static constexpr std::size_t kNamedMax = 10;           // ids in a message

  enum class Outcome {
    kAgrees,      // the map is what the table is
    kDiffers,     // it is not, and nothing told of it
    kLookCloser,  // it may be that changes came in between: look at the rows of `buckets`
    kUnsure,      // too much changed in between
  };

  // What came in while the audit is under way. A row that was told of may be in either state.
  void told_of(std::string_view id);
  // Of more rows than were kept.
  void told_of_many() { told_too_much_ = true; }
  // The whole table was read anew, or could not be: this audit says nothing.
  void spoil() { spoiled_ = true; }
  [[nodiscard]] bool spoiled() const { return spoiled_; }

  // A line of digest_sql()'s result. False if it is none.
  [[nodiscard]] bool add_bucket(std::string_view bucket, std::string_view rows,
                                std::string_view sum);
  // A row of digest_rows_sql()'s.
  void add_row(std::string_view id, std::uint64_t hash) { rows_.emplace(id, hash); }

  [[nodiscard]] Outcome compare(const KeySetWriter& writer, const UnusableRows& unusable);
  // Before the second look.
  void begin_second_look();
  [[nodiscard]] bool is_second_look() const { return second_look_; }
  [[nodiscard]] const std::vector<std::uint32_t>& buckets() const { return buckets_; }
  // After kDiffers: how many rows at least, and the ids of some, if there was a second look.
  [[nodiscard]] std::size_t differing() const { return differing_; }
  [[nodiscard]] const std::vector<std::string>& named() const { return named_; }

 private:
  Outcome compare_rows(const KeySetWriter& writer, const UnusableRows& unusable);
  void differs(std::string_view id);

  RowSums theirs_;
  std::unordered_set<std::string> told_;
  std::size_t told_bytes_ = 0;
  bool told_too_much_ = false;
  bool spoiled_ = false;
  bool second_look_ = false;
  std::vector<std::uint32_t> buckets_;
  std::unordered_map<std::string, std::uint64_t> rows_;
  std::size_t differing_ = 0;
  std::vector<std::string> named_;
};

// What follows from audits of one source that cannot decide: somebody may see to it that none can,
// and hide what bypasses the triggers. So a load decides each time (unless one has, and so spoilt
// the audit), and several in a row are an alarm.
class UndecidedAudits {
 public:
  static constexpr std::uint64_t kAlarmAfter = 3;

  // Counts one more. True for the one that makes it an alarm.
  [[nodiscard]] bool add() { return ++in_a_row_ == kAlarmAfter; }
  void decided() { in_a_row_ = 0; }
  [[nodiscard]] std::uint64_t in_a_row() const { return in_a_row_; }

 private:
  std::uint64_t in_a_row_ = 0;
};

}  // namespace latchkey
