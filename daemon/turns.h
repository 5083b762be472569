// Whose turn it is: what waits to be done, by caller, each caller in turn. So one who asks for much
// makes himself wait, not the others.
#pragma once

#include <sys/types.h>

#include <deque>
#include <optional>
#include <unordered_map>
#include <utility>

namespace latchkey {

template <typename Item>
class Turns {
 public:
  void add(uid_t uid, Item item) {
    std::deque<Item>& items = waiting_[uid];
    if (items.empty()) ring_.push_back(uid);
    items.push_back(std::move(item));
  }
  // The next caller's first item. Nothing: nobody waits.
  [[nodiscard]] std::optional<Item> next() {
    if (ring_.empty()) return std::nullopt;
    const uid_t uid = ring_.front();
    ring_.pop_front();
    const auto found = waiting_.find(uid);
    Item item = std::move(found->second.front());
    found->second.pop_front();
    if (found->second.empty()) {
      waiting_.erase(found);
    } else {
      ring_.push_back(uid);
    }
    return item;
  }
  [[nodiscard]] bool empty() const { return ring_.empty(); }

 private:
  std::unordered_map<uid_t, std::deque<Item>> waiting_;
  std::deque<uid_t> ring_;  // those that wait, each once
};

}  // namespace latchkey
