// Schedules waiting work by the rule that admitted its caller, and within a rule by uid. The rules
// have turns, and within each rule the uids have turns. So a caller with much work delays only
// itself, even if it has many uids.
#pragma once

#include <cstddef>
#include <deque>
#include <map>
#include <optional>
#include <utility>

#include "verify/rights.h"

namespace latchkey {

// A first-in, first-out queue.
template <typename Item>
class Queue {
 public:
  void add(Item item) { items_.push_back(std::move(item)); }
  [[nodiscard]] std::optional<Item> next() {
    if (empty()) return std::nullopt;
    Item item = std::move(items_.front());
    items_.pop_front();
    return item;
  }
  [[nodiscard]] bool empty() const { return items_.empty(); }

 private:
  std::deque<Item> items_;
};

// Waiting items by key, with a queue (or a ring) for each key. A key that had no item comes before
// the keys that always have one (as in fq_codel, RFC 8290 section 3.1), but never twice in a row
// while these wait, so no key can starve them.
template <typename Key, typename Waiting>
class Ring {
 public:
  template <typename... Rest>
  void add(const Key& key, Rest&&... rest) {
    Waiting& waiting = waiting_[key];
    if (waiting.empty()) new_.push_back(key);
    waiting.add(std::forward<Rest>(rest)...);
  }
  // The first item of the next key; nullopt if there is none.
  [[nodiscard]] auto next() -> decltype(std::declval<Waiting&>().next()) {
    if (empty()) return std::nullopt;
    const bool from_new = !new_.empty() && (old_.empty() || !last_was_new_);
    last_was_new_ = from_new;
    std::deque<Key>& ring = from_new ? new_ : old_;
    const Key key = ring.front();
    ring.pop_front();
    const auto found = waiting_.find(key);
    auto item = found->second.next();
    if (!found->second.empty()) {
      old_.push_back(key);
    } else if (waiting_.size() > kKept) {
      waiting_.erase(found);
    }
    return item;
  }
  [[nodiscard]] bool empty() const { return new_.empty() && old_.empty(); }

 private:
  // Some keys without an item are kept: a caller that waits again then costs no allocation.
  static constexpr std::size_t kKept = 16;

  std::map<Key, Waiting> waiting_;
  std::deque<Key> new_, old_;  // each key with an item is in exactly one of them, once
  bool last_was_new_ = false;
};

template <typename Item>
class Turns {
 public:
  void add(const CallerId& id, Item item) { ring_.add(id.share, id.uid, std::move(item)); }
  // The next caller's first item; nullopt if there is none.
  [[nodiscard]] std::optional<Item> next() { return ring_.next(); }
  [[nodiscard]] bool empty() const { return ring_.empty(); }

 private:
  Ring<Share, Ring<uid_t, Queue<Item>>> ring_;
};

}  // namespace latchkey
