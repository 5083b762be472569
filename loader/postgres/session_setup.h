// What every connection of ours begins with.
#pragma once

#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "loader/postgres/catalogue.h"

namespace latchkey {

constexpr std::int64_t kSecond = 1'000'000'000;  // in ns
constexpr std::int64_t kNoDeadline = std::numeric_limits<std::int64_t>::max();
// Each step of a conversation has this long; a load, for each of its parts.
constexpr std::int64_t kStepDeadline = 10 * kSecond;

// Pins whatever decides what our statements mean and how values are spelled. No search path to be
// led astray by; errors instead of hidden rows, unless the rows are seen `by_policy`; a lock that
// somebody holds on one table must not keep the changes of others waiting for long.
[[nodiscard]] std::string session_settings(bool by_policy);

// Notifies: on channel $1, of $2. Transactions that notify commit one after the other (PostgreSQL
// manual, NOTIFY): a huge one of somebody else's holds a lock for seconds. That is no reason to
// give the connection up: what waits for the notification has deadlines of its own.
[[nodiscard]] std::string notify_sql();

// A session is as new, but for its settings, which have to be made again.
constexpr const char* kDiscardAll = "DISCARD ALL";

// Which table's owner a session has served last.
//
// PostgreSQL can run code of a table's owner for whoever reads the table (see
// TableFacts::foreign_code), and such code may leave settings, prepared statements or temporary
// objects behind in the session. So a session serves one owner at a time: before it touches a table
// of another, it is made new. No owner can influence how another's table is read.
class SessionOwner {
 public:
  // A new session, for which session_settings(false) have been sent.
  void begin() { *this = {}; }
  // What has to be sent, one message after the other, before the session touches this table;
  // usually nothing.
  [[nodiscard]] std::vector<std::string> before(const std::string& source, const TableFacts& facts);

 private:
  std::string owner_;  // empty: of nothing yet
  bool by_policy_ = false;
};

}  // namespace latchkey
