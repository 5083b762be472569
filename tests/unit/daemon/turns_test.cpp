// The order of turns among many callers, against properties and a simple simulation.
// (admission_test.cpp: single cases.)
#include "daemon/server/turns.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include "tests/unit/support/helpers.h"

namespace latchkey {
namespace {

// ---- a simulation that searches all that waits

class ModelQueue {
 public:
  void add(int item) { items_.push_back(item); }
  int next() {
    const int item = items_.front();
    items_.erase(items_.begin());
    return item;
  }
  [[nodiscard]] bool empty() const { return items_.empty(); }

 private:
  std::vector<int> items_;
};

// Each key that waits is new until its first turn. Kinds take turns while both wait; within a kind
// the longest waiting key is next.
template <typename Key, typename Inner>
class ModelRing {
 public:
  template <typename... Rest>
  void add(const Key& key, Rest... rest) {
    auto found = std::ranges::find(keys_, key, &Entry::key);
    if (found == keys_.end()) found = keys_.insert(found, {key, {}, true, ++clock_});
    found->inner.add(rest...);
  }
  int next() {
    const bool any_new = std::ranges::any_of(keys_, &Entry::is_new);
    const bool any_old = !std::ranges::all_of(keys_, &Entry::is_new);
    last_was_new_ = any_new && !(any_old && last_was_new_);
    auto best = keys_.end();
    for (auto entry = keys_.begin(); entry != keys_.end(); ++entry) {
      if (entry->is_new != last_was_new_) continue;
      if (best == keys_.end() || entry->since < best->since) best = entry;
    }
    const int item = best->inner.next();
    if (best->inner.empty()) {
      keys_.erase(best);
    } else {
      best->is_new = false;
      best->since = ++clock_;
    }
    return item;
  }
  [[nodiscard]] bool empty() const { return keys_.empty(); }

 private:
  struct Entry {
    Key key;
    Inner inner;
    bool is_new;
    std::uint64_t since;
  };
  std::vector<Entry> keys_;
  std::uint64_t clock_ = 0;
  bool last_was_new_ = false;
};

TEST(RingTest, DoesAsTheSimulation) {
  test::Random random;
  for (int round = 0; round < 200; ++round) {
    Ring<int, Queue<int>> ring;
    ModelRing<int, ModelQueue> model;
    const std::size_t keys = 1 + random.below(12), adds = 1 + random.below(4);
    int item = 0;
    for (int step = 0; step < 300; ++step) {
      ASSERT_EQ(ring.empty(), model.empty());
      if (random.below(5) < adds) {
        const int key = static_cast<int>(random.below(keys));
        ring.add(key, ++item);
        model.add(key, item);
      } else if (model.empty()) {
        ASSERT_EQ(ring.next(), std::nullopt);
      } else {
        ASSERT_EQ(ring.next(), model.next()) << "round " << round << ", step " << step;
      }
    }
  }
}

TEST(TurnsModel, DoAsTheSimulationByRuleAndByUid) {
  test::Random random;
  // The last two have one uid under two rules.
  const std::vector<CallerId> callers = {
      {{Share::Kind::kReserve}, 0},
      {{Share::Kind::kNone}, 900},
      {{Share::Kind::kNone}, 901},
      {{Share::Kind::kRule, 1}, 1},
      {{Share::Kind::kRule, 2}, 2},
      {{Share::Kind::kRule, std::nullopt, 7}, 1},
      {{Share::Kind::kRule, std::nullopt, 7}, 3},
      {{Share::Kind::kRule, std::nullopt, 7}, 4},
      {{Share::Kind::kRule, std::nullopt, 8}, 4},
  };
  for (int round = 0; round < 200; ++round) {
    Turns<int> turns;
    ModelRing<Share, ModelRing<uid_t, ModelQueue>> model;
    const std::size_t adds = 1 + random.below(4);
    int item = 0;
    for (int step = 0; step < 300; ++step) {
      ASSERT_EQ(turns.empty(), model.empty());
      if (random.below(5) < adds) {
        const CallerId& id = callers[random.below(callers.size())];
        turns.add(id, ++item);
        model.add(id.share, id.uid, item);
      } else if (!model.empty()) {
        ASSERT_EQ(turns.next(), model.next()) << "round " << round << ", step " << step;
      }
    }
    while (!model.empty()) ASSERT_EQ(turns.next(), model.next());
    ASSERT_EQ(turns.next(), std::nullopt);
  }
}

// ---- properties

// A ring of (key, number): items of one key are numbered in the order in which they were added.
class RingOfNumbers {
 public:
  void add(int key) { ring_.add(key, std::pair(key, added_[key]++)); }
  // The key whose turn it is.
  int next() {
    const auto item = ring_.next();
    if (!item) return -1;
    EXPECT_EQ(item->second, served_[item->first]++) << "in the order of the key's items";
    return item->first;
  }
  [[nodiscard]] bool empty() const { return ring_.empty(); }

 private:
  Ring<int, Queue<std::pair<int, int>>> ring_;
  std::map<int, int> added_, served_;
};

TEST(RingTest, LosesAndRepeatsNothing) {
  test::Random random;
  RingOfNumbers ring;
  std::map<int, int> waiting;
  int all = 0;
  for (int step = 0; step < 20'000; ++step) {
    if (random.below(2) == 0) {
      const int key = static_cast<int>(random.below(40));
      ring.add(key);
      ++waiting[key];
      ++all;
    } else if (all > 0) {
      --all;
      EXPECT_GE(--waiting[ring.next()], 0);
    }
    ASSERT_EQ(ring.empty(), all == 0);
  }
}

TEST(RingTest, ServesAllKeysThatAlwaysWaitEquallyOften) {
  test::Random random;
  for (const int keys : {1, 2, 3, 17, 500}) {
    RingOfNumbers ring;
    for (int key = 0; key < keys; ++key) {
      for (std::size_t items = 30 + random.below(50); items > 0; --items) ring.add(key);
    }
    for (int i = 0; i < 2 * keys; ++i) ring.next();  // afterwards no key is new
    for (int turn = 0; turn < 5; ++turn) {
      std::set<int> served;
      for (int i = 0; i < keys; ++i) served.insert(ring.next());
      EXPECT_EQ(served.size(), static_cast<std::size_t>(keys)) << "each once in a round";
    }
  }
}

TEST(RingTest, ServesNewKeysFirstButNeverTwiceInARow) {
  test::Random random;
  for (int round = 0; round < 100; ++round) {
    RingOfNumbers ring;
    const int old_keys = 1 + static_cast<int>(random.below(5));
    for (int key = 0; key < old_keys; ++key) {
      for (int i = 0; i < 1000; ++i) ring.add(key);
    }
    // So that all of these keys have had a turn, and the last one was of an old key.
    for (int i = 0; i < 2 * old_keys; ++i) ring.next();
    bool before_was_new = false;
    int newcomer = 1000, waiting = 0;
    for (int turn = 0; turn < 100; ++turn) {
      for (std::size_t come = random.below(3); come > 0; --come, ++waiting) ring.add(newcomer++);
      const bool is_new = ring.next() >= 1000;
      EXPECT_EQ(is_new, waiting > 0 && !before_was_new);
      waiting -= is_new ? 1 : 0;
      before_was_new = is_new;
    }
  }
}

TEST(RingTest, LetsAKeyThatWasEmptyComeBackAsNew) {
  RingOfNumbers ring;
  for (int i = 0; i < 10; ++i) ring.add(1);
  for (int i = 0; i < 2; ++i) EXPECT_EQ(ring.next(), 1);
  for (int i = 0; i < 4; ++i) {
    ring.add(2);
    EXPECT_EQ(ring.next(), 2) << "it asks now and then, and need not wait";
    EXPECT_EQ(ring.next(), 1);
  }
}

TEST(RingTest, LetsNoKeyWaitLongerThanTwoRounds) {
  test::Random random;
  constexpr int kKeys = 20;
  RingOfNumbers ring;
  std::map<int, int> last_turn;
  for (int key = 0; key < kKeys; ++key) {
    for (int i = 0; i < 1000; ++i) ring.add(key);
  }
  for (int i = 0; i < 2 * kKeys; ++i) ring.next();
  int newcomer = 1000;
  for (int turn = 0; turn < 2000; ++turn) {
    for (std::size_t come = random.below(5); come > 0; --come) ring.add(newcomer++);
    last_turn[ring.next()] = turn;
    if (turn < 2 * kKeys) continue;
    for (int key = 0; key < kKeys; ++key) ASSERT_LE(turn - last_turn[key], 2 * kKeys) << key;
  }
}

TEST(TurnsModel, GiveARuleOfManyUidsNoMoreThanARuleOfOne) {
  test::Random random;
  Turns<int> turns;
  const CallerId one{{Share::Kind::kRule, 1}, 1};
  for (int i = 0; i < 400; ++i) turns.add(one, 1);
  for (uid_t uid = 100; uid < 300; ++uid) {
    for (int i = 0; i < 2; ++i) turns.add({{Share::Kind::kRule, std::nullopt, 7}, uid}, 7);
  }
  int served_one = 0;
  for (int i = 0; i < 400; ++i) served_one += turns.next() == 1 ? 1 : 0;
  EXPECT_NEAR(served_one, 200, 1);
}

}  // namespace
}  // namespace latchkey
