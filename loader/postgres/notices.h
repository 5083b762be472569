// Notifications between the socket and the policy: the socket is emptied first, payloads are parsed
// later.
//
// A session that does not read keeps PostgreSQL's notification queue, which all sessions share. So
// this queue takes payloads as fast as they arrive and does little with each: it reads the table's
// name, drops notices for tables that are no source, and stores the rest unparsed. It holds
// kBytesMax; above that, the table with the most bytes loses its notices, and TooMany reports
// instead that something has changed there. Notices for other tables stay.
//
// Order: notices are popped in the order in which they were pushed, except TooMany, which may come
// earlier than the notices that it replaces. So when a nonce is popped, everything that arrived
// before it has been reported.
//
// Pure.
#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace latchkey {

class NoticeQueue {
 public:
  // The size of the ids that are re-read one by one at most (RefreshSettings::pending_ids_max):
  // more notices would end as a reload anyway, and delay the nonce behind them.
  static constexpr std::size_t kBytesMax = 4 << 20;

  // A trigger's notification; `table` is an index into `tables`.
  struct Change {
    std::size_t table;
    std::string payload;
  };
  struct TooMany {
    std::size_t table;
  };
  // A notification on the heartbeat's channel.
  struct Own {
    std::string payload;
  };
  using Notice = std::variant<Change, TooMany, Own>;
  enum class Pushed { kTaken, kOtherTable, kMalformed };

  // `tables`: without duplicates, spelled as triggers spell them.
  explicit NoticeQueue(const std::vector<std::string>& tables, std::size_t bytes_max = kBytesMax);

  Pushed push_change(std::string_view payload);
  // The same for a payload that is not in our encoding and not ASCII: its ids cannot be read, only
  // (perhaps) its table. It counts as too many ids.
  Pushed push_unreadable(std::string_view payload);
  // The caller drops payloads that are not awaited: the heartbeat's channel is only hard to guess.
  void push_own(std::string_view payload);
  [[nodiscard]] std::optional<Notice> pop();

  void clear();
  [[nodiscard]] bool empty() const;
  [[nodiscard]] std::size_t bytes() const { return bytes_; }

 private:
  struct Table {
    std::string tag;  // its name as JSON, without the quotation marks
    std::size_t bytes = 0;
    bool too_many = false;
  };
  [[nodiscard]] std::optional<std::size_t> table_of(std::string_view tag) const;
  void collapse(std::size_t table);

  std::size_t bytes_max_;
  std::vector<Table> tables_;
  std::deque<std::variant<Change, Own>> queue_;
  std::size_t bytes_ = 0;
};

// The table's name in a trigger's payload, still as JSON: the text between the quotation marks.
// nullopt if the payload does not begin like a trigger's.
[[nodiscard]] std::optional<std::string_view> notice_tag(std::string_view payload);

}  // namespace latchkey
