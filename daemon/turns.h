// Whose turn it is: what waits to be done, by caller, each caller in turn. So one who asks for much
// makes himself wait, not the others.
//
// Who has not been waiting comes first, before those who always have something (as in fq_codel, RFC
// 8290 section 3.1), but never twice in a row while those wait: so nobody can keep them waiting.
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
    if (items.empty()) new_.push_back(uid);
    items.push_back(std::move(item));
  }
  // The next caller's first item. Nothing: nobody waits.
  [[nodiscard]] std::optional<Item> next() {
    if (empty()) return std::nullopt;
    const bool from_new = !new_.empty() && (old_.empty() || !last_was_new_);
    last_was_new_ = from_new;
    std::deque<uid_t>& ring = from_new ? new_ : old_;
    const uid_t uid = ring.front();
    ring.pop_front();
    const auto found = waiting_.find(uid);
    Item item = std::move(found->second.front());
    found->second.pop_front();
    if (found->second.empty()) {
      waiting_.erase(found);
    } else {
      old_.push_back(uid);
    }
    return item;
  }
  [[nodiscard]] bool empty() const { return new_.empty() && old_.empty(); }

 private:
  std::unordered_map<uid_t, std::deque<Item>> waiting_;
  std::deque<uid_t> new_, old_;  // those that wait, each once in one of them
  bool last_was_new_ = false;
};

}  // namespace latchkey
