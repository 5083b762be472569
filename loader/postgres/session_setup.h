// The settings with which each of our connections begins.
#pragma once

#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "loader/postgres/catalogue.h"

namespace latchkey {

constexpr std::int64_t kSecond = 1'000'000'000;  // in ns
constexpr std::int64_t kNoDeadline = std::numeric_limits<std::int64_t>::max();
// Time limit for each step of a conversation, and for each part of a load.
constexpr std::int64_t kStepDeadline = 10 * kSecond;

// Pins all settings that affect the meaning of our statements and the text form of values: a safe
// search path; errors instead of hidden rows, unless the rows are seen `by_policy`; a lock
// time-out, so that a lock on one table delays the changes of others only briefly.
[[nodiscard]] std::string session_settings(bool by_policy);

// Sends payload $2 on channel $1. Transactions that notify commit one after another (PostgreSQL
// manual, NOTIFY): a huge one of another session holds a lock for seconds. The connection is kept
// meanwhile: the waits for the notification have their own deadlines.
[[nodiscard]] std::string notify_sql();

// Resets a session completely; its settings must be applied again.
constexpr const char* kDiscardAll = "DISCARD ALL";

// The table owner that a session has served last.
//
// PostgreSQL can run code of a table's owner in the session that reads the table (see
// TableFacts::foreign_code), and this code may leave settings, prepared statements or temporary
// objects behind. So a session serves one owner at a time, and is reset before it touches a table
// of another owner. No owner can influence how another owner's table is read.
class SessionOwner {
 public:
  // Starts a new session, for which session_settings(false) have been sent.
  void begin() { *this = {}; }
  // The statements to send, one message after another, before the session touches this table;
  // usually none.
  [[nodiscard]] std::vector<std::string> before(const std::string& source, const TableFacts& facts);

 private:
  std::string owner_;  // empty: no table so far
  bool by_policy_ = false;
};

}  // namespace latchkey
