// Notifications of changes: the text that triggers send, parsed.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace latchkey {

// All triggers notify on this channel. Payload, JSON: {"t": table, "ids": ["1", ...]}; {"t": table,
// "all": true} after TRUNCATE; {"t": table, "reload": true} if changed rows cannot be named: too
// many rows, ids that are too long, a mapped column that was dropped.
constexpr const char* kChangeChannel = "latchkey";

// Bytes of the longest id that a payload names, as JSON. A longer id might not fit into a payload:
// the whole table is read instead.
constexpr std::size_t kIdBytesMax = 1000;

// One notification on kChangeChannel, parsed.
struct ChangeNotice {
  std::string table;
  bool truncated = false;
  bool reload = false;  // the trigger could not name the changed rows
  std::vector<std::string> ids;

  // Returns nullopt if the payload has none of our triggers' forms. It may still contain ids that
  // no trigger sends (see is_notified_id()).
  [[nodiscard]] static std::optional<ChangeNotice> parse(std::string_view payload);
};

// True if a trigger can send this id. A longer id does not fit into a payload; "reload" reports it.
// (In a database that is not UTF-8 the length in its encoding counts, which is not known here.)
[[nodiscard]] bool is_notified_id(std::string_view id);

}  // namespace latchkey
