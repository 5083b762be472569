// Notifications between the socket and the policy: the socket is emptied first, payloads are parsed
// later.
//
// PostgreSQL holds a session that does not read, and with it the notification queue of all. So the
// queue takes payloads as fast as they come and does little with each: it looks at the table's
// name, drops what is about no table of ours, and keeps the rest as it is. It holds kBytesMax; past
// that the table with the most of it loses its notices, and TooMany tells instead that something
// has changed there. What is about other tables stays.
//
// Order: what was pushed is popped in the same order, but for TooMany, which may come earlier than
// what it stands for. So when a nonce is popped, everything that came before it has been told.
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
  // As much as the ids take that are read one by one at most (RefreshSettings::pending_ids_max):
  // more would end as a reload all the same, and keep the nonce behind it waiting.
  static constexpr std::size_t kBytesMax = 4 << 20;

  // What triggers notified of a table; by its number among `tables`.
  struct Change {
    std::size_t table;
    std::string payload;
  };
  struct TooMany {
    std::size_t table;
  };
  // On the heartbeat's channel.
  struct Own {
    std::string payload;
  };
  using Notice = std::variant<Change, TooMany, Own>;
  enum class Pushed { kTaken, kOtherTable, kMalformed };

  // `tables`: each once, as triggers name them.
  explicit NoticeQueue(const std::vector<std::string>& tables, std::size_t bytes_max = kBytesMax);

  Pushed push_change(std::string_view payload);
  // Likewise, where the payload is in an encoding that is not ours and holds more than ASCII: what
  // it names cannot be told, only (perhaps) of which table. As if there had been too many ids.
  Pushed push_unreadable(std::string_view payload);
  // The caller drops what nobody waits for; the heartbeat's channel is hard to guess, no more.
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

// The name of the table in a payload such as a trigger sends, still as JSON: what stands between
// the quotation marks. Nothing if the payload does not begin like one.
[[nodiscard]] std::optional<std::string_view> notice_tag(std::string_view payload);

}  // namespace latchkey
