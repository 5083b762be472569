// Notifications, which any login of the database can send.
//
// - Notifications are popped in the order in which they were pushed, except for tables with too
//   many, which are reported; so no change of a table of ours is lost.
// - The queue keeps to its limit.
// - A trigger's notification is assigned to its table, and all its ids are read.
#include <algorithm>
#include <deque>
#include <nlohmann/json.hpp>

#include "loader/postgres/notices.h"
#include "loader/postgres/triggers.h"
#include "tests/fuzz/fuzz.h"

namespace {

using namespace latchkey;
using nlohmann::json;

const std::vector<std::string> kTables = {"public.api_keys", "a.b",
                                          "sch\"e\\ma.t\xC3\xA4"
                                          "ble"};
constexpr std::size_t kBytesMax = 1500;

std::string honest(FuzzedDataProvider& input, std::size_t table) {
  nlohmann::ordered_json payload;
  payload["t"] = kTables[table];
  std::vector<std::string> ids(input.ConsumeIntegralInRange<std::size_t>(0, 3));
  for (std::string& id : ids) id = fuzz::short_text(input, 20);
  payload["ids"] = ids;
  return payload.dump(-1, ' ', false, json::error_handler_t::replace);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  FuzzedDataProvider input(data, size);
  NoticeQueue queue(kTables, kBytesMax);
  std::deque<std::pair<std::size_t, std::string>> owed;  // the table and the payload, in order
  const auto pop = [&] {
    const auto notice = queue.pop();
    if (!notice) return false;
    if (const auto* many = std::get_if<NoticeQueue::TooMany>(&*notice)) {
      std::erase_if(owed, [&](const auto& one) { return one.first == many->table; });
    } else if (const auto* change = std::get_if<NoticeQueue::Change>(&*notice)) {
      FUZZ_CHECK(!owed.empty());
      FUZZ_CHECK(owed.front() == std::pair(change->table, change->payload));
      owed.pop_front();
    }
    return true;
  };
  for (int steps = 0; steps < 40 && input.remaining_bytes() > 0; ++steps) {
    const std::size_t table = input.ConsumeIntegralInRange<std::size_t>(0, kTables.size() - 1);
    switch (input.ConsumeIntegralInRange<int>(0, 5)) {
      case 0: (void)pop(); break;
      case 1: queue.push_own(fuzz::short_text(input, 20)); break;
      case 2: (void)queue.push_unreadable(input.ConsumeRandomLengthString(200)); break;
      case 3: {
        const std::string payload = honest(input, table);
        FUZZ_CHECK(queue.push_change(payload) == NoticeQueue::Pushed::kTaken);
        owed.emplace_back(table, payload);
        const auto read = ChangeNotice::parse(payload);
        FUZZ_CHECK(read && read->table == kTables[table]);
        FUZZ_CHECK(json(read->ids) == json::parse(payload)["ids"]);
        break;
      }
      default: {
        const std::string payload = input.ConsumeRandomLengthString(300);
        const auto pushed = queue.push_change(payload);
        const auto read = ChangeNotice::parse(payload);
        if (pushed == NoticeQueue::Pushed::kTaken) {
          // The first name decides the table; in a trigger's notification, all names are equal.
          const auto tag = notice_tag(payload);
          FUZZ_CHECK(tag.has_value());
          const json name = json::parse('"' + std::string(*tag) + '"', nullptr, false);
          for (std::size_t i = 0; i < kTables.size(); ++i) {
            if (name.is_string() && name == kTables[i]) owed.emplace_back(i, payload);
          }
        }
        if (read) {
          FUZZ_CHECK(read->truncated + read->reload <= 1);
          for (const std::string& id : read->ids) (void)is_notified_id(id);
        }
      }
    }
    FUZZ_CHECK(queue.bytes() <= kBytesMax);
  }
  while (pop()) {
  }
  FUZZ_CHECK(queue.empty() && queue.bytes() == 0);
  FUZZ_CHECK(owed.empty());
  return 0;
}
