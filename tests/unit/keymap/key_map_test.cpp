// One set of tests for every hash function, hostile ones included: the spread of digests decides
// how fast the map is, never its answers.
#include "keymap/key_map.h"

#include <gtest/gtest.h>

#include <map>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "tests/unit/support/hostile_hashes.h"

namespace latchkey {
namespace {

using test::Random;

using test::HashCase;

class KeyMapTest : public testing::TestWithParam<HashCase> {
 protected:
  // The map does not own the records: they live as long as the test.
  const Record* make(std::size_t key, std::uint64_t version = 0) {
    return records_.make(test::row(std::to_string(version), std::to_string(key)));
  }
  const Digest& digest(std::size_t key) {
    while (digests_.size() <= key) digests_.push_back(sha256(std::to_string(digests_.size())));
    return digests_[key];
  }
  [[nodiscard]] std::size_t keys() const { return GetParam().keys; }
  [[nodiscard]] bool has_room() const {
    return (map_.size() + map_.tombstones()) * KeyMap::kLoadDenominator <=
           map_.slots() * KeyMap::kLoadNumerator;
  }

  Quiescence quiescence_;
  KeyMap map_{quiescence_, GetParam().hash, GetParam().segment_slots};

 private:
  test::Records records_;
  std::deque<Digest> digests_;
};
INSTANTIATE_TEST_SUITE_P(Hash, KeyMapTest, testing::ValuesIn(test::kHashes),
                         [](const auto& hash) { return std::string(hash.param.name); });

TEST_P(KeyMapTest, FindsWhatWasInsertedAndNothingElse) {
  std::vector<const Record*> records;
  for (std::size_t i = 0; i < keys(); ++i) {
    records.push_back(make(i));
    ASSERT_EQ(map_.insert(records.back()), nullptr);
  }
  for (std::size_t i = 0; i < keys(); ++i) ASSERT_EQ(map_.find(digest(i)), records[i]);
  for (std::size_t i = keys(); i < 2 * keys(); ++i) ASSERT_EQ(map_.find(digest(i)), nullptr);
  EXPECT_EQ(map_.size(), keys());
}

TEST_P(KeyMapTest, KeepsTheFirstRecordOfADigestUntilItIsReplaced) {
  const Record* first = make(1, 1);
  const Record* second = make(1, 2);
  EXPECT_EQ(map_.insert(first), nullptr);
  EXPECT_EQ(map_.insert(second), first);
  EXPECT_EQ(map_.find(digest(1)), first);
  EXPECT_EQ(map_.replace(second), first);
  EXPECT_EQ(map_.find(digest(1)), second);
  EXPECT_EQ(map_.erase(digest(1)), second);
  EXPECT_EQ(map_.erase(digest(1)), nullptr);
  EXPECT_EQ(map_.find(digest(1)), nullptr);
  EXPECT_EQ(map_.size(), 0U);
}

TEST_P(KeyMapTest, ComparesAllBytesOfADigest) {
  Digest near = digest(1);
  near.bytes[31] ^= 1;  // differs only in a bit that no hash of these tests uses, except slot_hash
  map_.insert(make(1));
  EXPECT_EQ(map_.find(near), nullptr);
  EXPECT_EQ(map_.erase(near), nullptr);
  EXPECT_NE(map_.find(digest(1)), nullptr);
}

TEST_P(KeyMapTest, AgreesWithUnorderedMap) {
  Random random;
  std::unordered_map<std::size_t, const Record*> model;
  for (std::size_t step = 0; step < 10 * keys(); ++step) {
    const std::size_t key = random.below(keys());
    const auto known = model.find(key);
    const Record* before = known == model.end() ? nullptr : known->second;
    switch (random.below(4)) {
      case 0: {
        const Record* record = make(key, step);
        ASSERT_EQ(map_.insert(record), before);
        model.emplace(key, record);
        break;
      }
      case 1:
        if (before == nullptr) break;
        model[key] = make(key, step);
        ASSERT_EQ(map_.replace(model[key]), before);
        break;
      case 2:
        ASSERT_EQ(map_.erase(digest(key)), before);
        model.erase(key);
        break;
      default: ASSERT_EQ(map_.find(digest(key)), before);
    }
    ASSERT_EQ(map_.size(), model.size());
    ASSERT_TRUE(has_room());
  }
  for (std::size_t key = 0; key < keys(); ++key) {
    const auto known = model.find(key);
    ASSERT_EQ(map_.find(digest(key)), known == model.end() ? nullptr : known->second);
  }
}

TEST_P(KeyMapTest, FindsInBatchesWhatItFindsOneByOne) {
  for (std::size_t i = 0; i < keys(); i += 2) map_.insert(make(i));
  for (std::size_t i = 0; i < keys(); i += 6) map_.erase(digest(i));
  Random random;
  for (std::size_t size = 0; size <= KeyMap::kBatchMax; ++size) {
    std::vector<Digest> asked;
    for (std::size_t i = 0; i < size; ++i) asked.push_back(digest(random.below(keys())));
    std::vector<const Record*> found(size);
    map_.find(asked, found);
    for (std::size_t i = 0; i < size; ++i) ASSERT_EQ(found[i], map_.find(asked[i])) << size;
  }
}

TEST_P(KeyMapTest, DoesNotGrowWhileKeysComeAndGo) {
  constexpr std::size_t kLive = 20;
  for (std::size_t i = 0; i < kLive; ++i) map_.insert(make(i));
  const std::size_t slots = map_.slots();
  for (std::size_t i = kLive; i < kLive + 2000; ++i) {
    map_.insert(make(i));
    ASSERT_NE(map_.erase(digest(i - kLive)), nullptr);
    ASSERT_TRUE(has_room());
  }
  EXPECT_EQ(map_.size(), kLive);
  // Small segments fill unevenly; 2000 tombstones would take 4000 slots.
  EXPECT_LE(map_.slots(), std::max(2 * slots, 16 * kLive))
      << "tombstones alone must not make the table larger";
}

// All keys are in one run of slots, where tombstones can be counted.
TEST(KeyMap, LeavesATombstoneOnlyWhereAProbeMustPass) {
  Quiescence quiescence;
  KeyMap map(quiescence, test::each<[](const Digest&) { return std::uint64_t{0}; }>);
  test::Records owner;
  std::vector<const Record*> records;
  for (const char* key : {"a", "b", "c"}) records.push_back(owner.make(test::row("1", key)));
  for (const Record* record : records) map.insert(record);
  map.erase(sha256("c"));
  EXPECT_EQ(map.tombstones(), 0U) << "the last of the run";
  map.erase(sha256("a"));
  EXPECT_EQ(map.tombstones(), 1U) << "b stands behind it";
  map.insert(records[2]);
  EXPECT_EQ(map.tombstones(), 0U) << "a tombstone is used again";
  EXPECT_EQ(map.find(sha256("b")), records[1]);
  EXPECT_EQ(map.find(sha256("c")), records[2]);
}

// For any number of keys, one more key moves at most one segment (and the directory).
TEST_P(KeyMapTest, MovesAtMostOneSegmentForAnUpdate) {
  Quiescence::Reader reader(quiescence_);
  const ReadSection section(reader);  // keeps outgrown memory, so that it can be counted
  for (std::size_t i = 0; i < keys(); ++i) {
    const std::size_t before = map_.retired();
    map_.insert(make(i));
    ASSERT_LE(map_.retired(), before + 2);
  }
  for (std::size_t i = 0; i < keys(); ++i) {
    const std::size_t before = map_.retired();
    map_.erase(digest(i));
    ASSERT_LE(map_.retired(), before + 1);
  }
}

TEST_P(KeyMapTest, GivesBackTheMemoryOfKeysThatAreGone) {
  for (std::size_t i = 0; i < keys(); ++i) map_.insert(make(i));
  for (std::size_t i = 0; i < keys(); ++i) map_.erase(digest(i));
  EXPECT_EQ(map_.size(), 0U);
  EXPECT_LE(map_.slots(), 16 * map_.segments()) << "no segment stays much larger than its content";
  for (std::size_t i = 0; i < keys(); ++i) ASSERT_EQ(map_.insert(make(i)), nullptr);
  for (std::size_t i = 0; i < keys(); ++i) ASSERT_NE(map_.find(digest(i)), nullptr);
}

// An estimate may be arbitrarily wrong, and hashes may spread otherwise than it assumes.
TEST_P(KeyMapTest, IsRightWhateverWasReserved) {
  for (const std::size_t expected : {std::size_t{1}, keys() / 2, keys(), 3 * keys(), 50 * keys()}) {
    Quiescence quiescence;
    KeyMap map(quiescence, GetParam().hash, GetParam().segment_slots);
    map.reserve(expected);
    ASSERT_EQ(map.size(), 0U);
    std::vector<const Record*> records;
    for (std::size_t i = 0; i < keys(); ++i) {
      ASSERT_EQ(map.find(digest(i)), nullptr);
      records.push_back(make(i));
      ASSERT_EQ(map.insert(records.back()), nullptr);
      ASSERT_EQ(map.insert(make(i, 2)), records.back());
      ASSERT_LE(map.size() * KeyMap::kLoadDenominator, map.slots() * KeyMap::kLoadNumerator);
    }
    for (std::size_t i = 0; i < keys(); ++i) ASSERT_EQ(map.find(digest(i)), records[i]);
    const std::size_t slots = map.slots();
    map.reserve(100 * expected);
    EXPECT_EQ(map.slots(), slots) << "only a new map is laid out";
    for (std::size_t i = 0; i < keys(); ++i) ASSERT_EQ(map.erase(digest(i)), records[i]);
    EXPECT_EQ(map.size(), 0U);
    // One key more or less must not create a segment each time.
    for (std::size_t i = 0; i < 100; ++i) {
      map.insert(records[0]);
      map.erase(digest(0));
    }
    EXPECT_LE(map.slots(), slots);
  }
}

TEST(KeyMap, MovesNoKeysThatWereReserved) {
  Quiescence quiescence;
  KeyMap map(quiescence, slot_hashes, 64);
  Quiescence::Reader reader(quiescence);
  const ReadSection section(reader);  // keeps outgrown memory, so that it can be counted
  test::Records owner;
  constexpr std::size_t kKeys = 5000;
  map.reserve(kKeys);
  const std::size_t segments = map.segments();
  EXPECT_EQ(segments, 512U);
  const std::size_t before = map.retired();
  for (std::size_t i = 0; i < kKeys; ++i) {
    map.insert(owner.make(test::row("1", std::to_string(i))));
  }
  // Each segment gets its size with its fifth key, and keeps it. Hashes are random in each run, so
  // a few segments may hold more than expected.
  EXPECT_LE(map.segments(), segments + 10);
  EXPECT_LE(map.retired() - before, segments + 20);
  EXPECT_LE(map.slots(), (segments + 20) * 64);
}

// The directory must not double for keys that no doubling would separate.
TEST_P(KeyMapTest, KeepsItsMemoryInProportionToItsKeys) {
  for (std::size_t i = 0; i < keys(); ++i) map_.insert(make(i));
  map_.collect();
  EXPECT_LE(map_.memory().used_bytes(), 4096 + 128 * keys());
}

TEST_P(KeyMapTest, KeepsOutgrownTablesUntilTheSectionsOfTheirTimeHaveEnded) {
  Quiescence::Reader early_reader(quiescence_), late_reader(quiescence_);
  std::optional<ReadSection> early, late;
  early.emplace(early_reader);
  std::size_t next = 0;
  const auto outgrow = [&] {
    const std::size_t slots = map_.slots();
    while (map_.slots() == slots) map_.insert(make(next++));
  };
  outgrow();
  const std::size_t first = map_.retired();
  EXPECT_GE(first, 1U);
  late.emplace(late_reader);  // later than the first table's removal: cannot hold it
  outgrow();
  const std::size_t second = map_.retired() - first;
  EXPECT_GE(second, 1U);
  early.reset();
  map_.collect();
  EXPECT_EQ(map_.retired(), second) << "only what went later can still be held";
  late.reset();
  late.emplace(late_reader);
  map_.collect();
  EXPECT_EQ(map_.retired(), 0U) << "a section that began later holds nothing back";
}

}  // namespace
}  // namespace latchkey
