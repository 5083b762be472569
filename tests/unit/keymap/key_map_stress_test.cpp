// The map alone, under rare conditions: readers at work while it grows from nothing and shrinks
// again, with good and with hostile hashes; ten million keys inserted and removed.
//
// Bounded by default; LATCHKEY_STRESS_SECONDS makes the first test run for that long.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <latch>
#include <string>
#include <thread>
#include <vector>

#include "keymap/key_set.h"
#include "tests/unit/support/hostile_hashes.h"

namespace latchkey {
namespace {

using test::HashCase;
using test::Random;

class KeyMapUnderReaders : public testing::TestWithParam<HashCase> {};
INSTANTIATE_TEST_SUITE_P(Hash, KeyMapUnderReaders, testing::ValuesIn(test::kHashes),
                         [](const auto& hash) { return std::string(hash.param.name); });

// Keys are inserted, replaced, removed and inserted again while the map grows from nothing to all
// of them and shrinks to nothing, twice. Each change of a key has a greater version than the one
// before. This exposes a reader that is led to an old segment, or past a present key: a reader may
// see nothing older than the version in force before it asked, or than any version that a reader
// has seen.
class ComeAndGo {
 public:
  ComeAndGo(const HashCase& hash, std::size_t keys, std::uint64_t seed)
      : map_(quiescence_, hash.hash, hash.segment_slots),
        seed_(seed),
        rows_(keys),
        in_force_(keys),
        removing_(keys),
        told_(keys) {
    for (std::size_t key = 0; key < keys; ++key) {
      digests_.push_back(sha256(std::to_string(key)));
    }
  }

  void run() {
    constexpr std::size_t kReaders = 3;
    std::latch start(kReaders + 1);
    std::vector<std::thread> readers;
    for (std::size_t number = 0; number < kReaders; ++number) {
      readers.emplace_back([&, number] {
        Quiescence::Reader reader(quiescence_);
        Random random(seed_ + number);
        start.arrive_and_wait();
        while (!done_.load(std::memory_order_relaxed) && !testing::Test::HasFailure()) {
          read(reader, random);
        }
      });
    }
    start.arrive_and_wait();
    Random random(seed_ + kReaders);
    for (int phase = 0; phase < 4 && !testing::Test::HasFailure(); ++phase) {
      for (std::size_t step = 0; step < 2 * rows_.size(); ++step) {
        change(random.below(rows_.size()), phase % 2 == 0 ? 8 : 2, random);
        if (step % 16 == 0) map_.collect();
      }
      for (std::size_t key = 0; phase % 2 == 1 && key < rows_.size(); ++key) {
        if (rows_[key] != nullptr) remove(key);
      }
    }
    done_ = true;
    for (std::thread& reader : readers) reader.join();
    map_.collect();
    EXPECT_EQ(map_.retired(), 0U);
    EXPECT_EQ(map_.size(), 0U);
  }

 private:
  // Of ten changes, `puts` put a row in place, the others remove one.
  void change(std::size_t key, std::size_t puts, Random& random) {
    if (random.below(10) >= puts) {
      if (rows_[key] != nullptr) remove(key);
      return;
    }
    // Records are never freed here: this test is about the map's own memory.
    const std::string version = std::to_string(++version_);
    const Record* fresh = records_.make(test::row(version, std::to_string(key)));
    if (rows_[key] == nullptr) {
      ASSERT_EQ(map_.insert(fresh), nullptr);
    } else {
      ASSERT_EQ(map_.replace(fresh), rows_[key]);
    }
    rows_[key] = fresh;
    in_force_[key].store(version_);
  }
  void remove(std::size_t key) {
    removing_[key].store(++version_);
    ASSERT_EQ(map_.erase(digests_[key]), rows_[key]);
    rows_[key] = nullptr;
    in_force_[key].store(version_);
  }

  void read(Quiescence::Reader& reader, Random& random) {
    std::array<std::size_t, KeyMap::kBatchMax> keys;
    std::array<std::uint64_t, KeyMap::kBatchMax> floor;
    std::array<Digest, KeyMap::kBatchMax> digests;
    std::array<const Record*, KeyMap::kBatchMax> found;
    const std::size_t count = 1 + random.below(KeyMap::kBatchMax);
    for (std::size_t i = 0; i < count; ++i) {
      keys[i] = random.below(digests_.size());
      digests[i] = digests_[keys[i]];
      floor[i] = std::max(told_[keys[i]].load(), in_force_[keys[i]].load());
    }
    const ReadSection section(reader);
    map_.find(std::span(digests).first(count), found);
    for (std::size_t i = 0; i < count; ++i) {
      if (found[i] == nullptr) {
        ASSERT_GE(removing_[keys[i]].load(), floor[i]) << "key " << keys[i] << " was lost";
        continue;
      }
      ASSERT_EQ(found[i]->digest(), digests[i]);
      const std::uint64_t version = std::stoull(std::string(found[i]->key_id()));
      ASSERT_GE(version, floor[i]) << "key " << keys[i] << " is back in the past";
      std::atomic<std::uint64_t>& told = told_[keys[i]];
      std::uint64_t known = told.load();
      while (known < version && !told.compare_exchange_weak(known, version)) {
      }
    }
  }

  using Versions = std::vector<std::atomic<std::uint64_t>>;
  Quiescence quiescence_;
  KeyMap map_;
  test::Records records_;
  std::uint64_t seed_;
  std::vector<Digest> digests_;
  std::vector<const Record*> rows_;  // owned by the writer
  std::uint64_t version_ = 0;        // the writer's, too
  Versions in_force_;                // the last completed change
  Versions removing_;                // the last removal begun
  Versions told_;                    // the newest version seen by any reader
  std::atomic<bool> done_{false};
};

TEST_P(KeyMapUnderReaders, IsLinearizableWhileItGrowsAndShrinks) {
  const char* text = std::getenv("LATCHKEY_STRESS_SECONDS");
  const auto deadline = std::chrono::steady_clock::now() +
                        std::chrono::seconds(text != nullptr ? std::atoi(text) : 0);
  std::uint64_t round = 0;
  do {
    ComeAndGo(GetParam(), GetParam().keys, 1000 * ++round).run();
  } while (!HasFailure() && (round < 5 || std::chrono::steady_clock::now() < deadline));
}

// Ten million keys are inserted and ten million removed, at a constant number of rows: the
// process' memory at the end equals that after the warm-up.
TEST(KeySetChurn, KeepsMemoryWithinItsBound) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  constexpr std::size_t kChanges = 200'000;
#else
  constexpr std::size_t kChanges = 10'000'000;
#endif
  constexpr std::size_t kRows = 20'000;
  Quiescence quiescence;
  KeySet keys("source", quiescence);
  KeySetWriter writer(keys, quiescence);
  Digest digest{};
  const auto row = [&](std::size_t number, std::string& id) {
    id = std::to_string(number);
    RecordFacts facts;
    std::memcpy(digest.bytes.data(), &number, sizeof number);
    facts.digest = digest;
    facts.state = RowState::kActive;
    facts.key_id = id;
    facts.tenant = std::string_view(id).substr(0, 3);
    return facts;
  };
  std::string id;
  for (std::size_t i = 0; i < kRows; ++i) writer.upsert(row(i, id));
  const auto total = [&] {
    const KeySetMemory memory = writer.memory();
    return memory.records + memory.map + memory.index;
  };
  std::size_t settled = 0;
  for (std::size_t i = 0; i < kChanges; ++i) {
    writer.upsert(row(kRows + i, id));
    writer.remove(std::to_string(i));
    if (i % 64 == 0) writer.collect();
    if (i == kChanges / 10) settled = total();
    if (i % 4096 == 0) {
      ASSERT_LE((keys.map.size() + keys.map.tombstones()) * KeyMap::kLoadDenominator,
                keys.map.slots() * KeyMap::kLoadNumerator);
    }
  }
  EXPECT_EQ(writer.rows(), kRows);
  EXPECT_LE(total(), settled + settled / 10);
  writer.collect();
  EXPECT_EQ(writer.memory().waiting, 0U);
  for (std::size_t i = 0; i < kRows; ++i) writer.remove(std::to_string(kChanges + i));
  writer.collect();
  EXPECT_EQ(keys.map.size(), 0U);
  EXPECT_EQ(writer.tenants(), 0U);
  EXPECT_LE(keys.map.memory().used_bytes(), 4096U) << "an empty map gives its segments back";
}

}  // namespace
}  // namespace latchkey
