// The audit: compares the rows of the table with the rows of the map.
//
// PostgreSQL hashes every row (digest_sql); the daemon hashed every row as it was read, over the
// same bytes. RowSums of both are compared, which detects every change that no trigger reported. On
// a table that changes all the time some sums differ because a change came in between; a second
// look at the rows of those buckets, except the rows that were notified, decides.
//
// Pure: data from the database goes in, differences come out.
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

// Rows that can never match a presented key (e.g. with a digest of the wrong length) are in no map.
// The table has them all the same.
class UnusableRows {
 public:
  // set(): the present state of a row. erase(): the row has become usable, or is gone.
  void set(std::string_view id, std::uint64_t hash);
  void erase(std::string_view id);

  // A load of the whole table: replaces the known rows when it is complete.
  void begin_load() { abandon_load(); }
  void load(std::string_view id, std::uint64_t hash) { staged_.emplace(id, hash); }
  void finish_load();
  void abandon_load() { staged_ = {}; }

  [[nodiscard]] const RowSums& sums() const { return sums_; }
  // Zero if there is no such row.
  [[nodiscard]] std::uint64_t hash_of(std::string_view id) const;
  [[nodiscard]] const std::unordered_map<std::string, std::uint64_t>& rows() const { return rows_; }

 private:
  std::unordered_map<std::string, std::uint64_t> rows_;
  std::unordered_map<std::string, std::uint64_t> staged_;
  RowSums sums_;
};

// One audit of one source, from the digest to the result.
class Audit {
 public:
  static constexpr std::size_t kToldMax = 100'000;  // ids; above it differences stay unexplained
  static constexpr std::size_t kToldBytesMax = 8 << 20;  // size of these ids, with the same effect
  static constexpr std::size_t kRowsMax = 200'000;       // rows of the second look
  static constexpr std::size_t kNamedMax = 10;           // ids in a message

  enum class Result {
    kAgrees,      // the map equals the table
    kDiffers,     // the map differs, and no notification explains it
    kLookCloser,  // changes may have come in between: look at the rows of `buckets`
    kUnsure,      // too much changed in between
  };

  // Notifications that arrive while the audit runs. A notified row may be in either state.
  void told_of(std::string_view id);
  // More rows were notified than were kept.
  void told_of_many() { told_too_much_ = true; }
  // The whole table was loaded anew, or could not be: the audit has no result.
  void spoil() { spoiled_ = true; }
  [[nodiscard]] bool spoiled() const { return spoiled_; }

  // Takes a row of digest_sql()'s result. Returns false if it is malformed.
  [[nodiscard]] bool add_bucket(std::string_view bucket, std::string_view rows,
                                std::string_view sum);
  // Takes a row of digest_rows_sql()'s result.
  void add_row(std::string_view id, std::uint64_t hash) { rows_.emplace(id, hash); }

  [[nodiscard]] Result compare(const KeySetWriter& writer, const UnusableRows& unusable);
  // Prepares the second look.
  void begin_second_look();
  [[nodiscard]] bool is_second_look() const { return second_look_; }
  [[nodiscard]] const std::vector<std::uint32_t>& buckets() const { return buckets_; }
  // After kDiffers: the minimum number of differing rows, and some of their ids if there was a
  // second look.
  [[nodiscard]] std::size_t differing() const { return differing_; }
  [[nodiscard]] const std::vector<std::string>& named() const { return named_; }

 private:
  Result compare_rows(const KeySetWriter& writer, const UnusableRows& unusable);
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

// Counts audits of one source that cannot decide: an attacker may cause this, and hide changes that
// bypass the triggers. So a load replaces each of them (unless a load has spoilt the audit), and
// several in a row raise an alarm.
class UndecidedAudits {
 public:
  static constexpr std::uint64_t kAlarmAfter = 3;

  // Counts one more. Returns true for the one that raises the alarm.
  [[nodiscard]] bool add() { return ++in_a_row_ == kAlarmAfter; }
  void decided() { in_a_row_ = 0; }
  [[nodiscard]] std::uint64_t in_a_row() const { return in_a_row_; }

 private:
  std::uint64_t in_a_row_ = 0;
};

}  // namespace latchkey
