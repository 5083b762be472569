// The map alone, under conditions that it meets rarely: readers at work while it grows from nothing
// and shrinks again, with good and with hostile hashes; ten million keys that come and go.
//
// Bounded by default; LATCHKEY_STRESS_SECONDS makes the first go on for that long.
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
#include "tests/unit/hostile_hashes.h"

namespace latchkey {
namespace {

using test::HashCase;
using test::Random;

class KeyMapUnderReaders : public testing::TestWithParam<HashCase> {};
INSTANTIATE_TEST_SUITE_P(Hash, KeyMapUnderReaders, testing::ValuesIn(test::kHashes),
                         [](const auto& hash) { return std::string(hash.param.name); });

// Keys come in the order of their numbers, are replaced now and then, and go in the same order: so
// each reader knows of which keys it must find a record, and that it must be the key's own.
class ComeAndGo {
 public:
  ComeAndGo(const HashCase& hash, std::size_t keys, std::uint64_t seed)
      : map_(quiescence_, hash.hash, hash.segment_slots), keys_(keys), seed_(seed) {
    for (std::size_t i = 0; i < keys_; ++i) {
      rows_.push_back(records_.make(test::row("first", std::to_string(i))));
      spares_.push_back(records_.make(test::row("second", std::to_string(i))));
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
    write();
    done_ = true;
    for (std::thread& reader : readers) reader.join();
    map_.collect();
    EXPECT_EQ(map_.retired(), 0U);
    EXPECT_EQ(map_.size(), 0U);
  }

 private:
  void write() {
    Random random(seed_ + 100);
    for (std::size_t i = 0; i < keys_; ++i) {
      ASSERT_EQ(map_.insert(rows_[i]), nullptr);
      come_.store(i + 1);
      const std::size_t other = random.below(i + 1);
      if (random.below(4) == 0 && other >= going_.load()) {
        std::swap(rows_[other], spares_[other]);
        ASSERT_EQ(map_.replace(rows_[other]), spares_[other]);
      }
      if (i % 3 == 0 && going_.load() + 64 < i) go();
      if (i % 16 == 0) map_.collect();
    }
    while (going_.load() < keys_) {
      go();
      if (going_.load() % 16 == 0) map_.collect();
    }
  }
  void go() {
    const std::size_t key = going_.load();
    going_.store(key + 1);  // first, so that no reader counts on it any more
    ASSERT_EQ(map_.erase(rows_[key]->digest()), rows_[key]);
  }

  void read(Quiescence::Reader& reader, Random& random) {
    std::array<std::size_t, KeyMap::kBatchMax> keys;
    std::array<Digest, KeyMap::kBatchMax> digests;
    std::array<const Record*, KeyMap::kBatchMax> found;
    const std::size_t come = come_.load();
    const std::size_t count = 1 + random.below(KeyMap::kBatchMax);
    for (std::size_t i = 0; i < count; ++i) {
      keys[i] = random.below(keys_);
      digests[i] = digest_of(keys[i]);
    }
    const ReadSection section(reader);
    map_.find(std::span(digests).first(count), found);
    const std::size_t going = going_.load();
    for (std::size_t i = 0; i < count; ++i) {
      if (found[i] != nullptr) {
        ASSERT_EQ(found[i]->digest(), digests[i]);
      } else {
        ASSERT_FALSE(keys[i] < come && keys[i] >= going) << "key " << keys[i] << " was lost";
      }
    }
  }
  // Not through rows_, which the writer changes.
  [[nodiscard]] const Digest& digest_of(std::size_t key) const { return digests_[key]; }
  [[nodiscard]] std::vector<Digest> all_digests() const {
    std::vector<Digest> all;
    for (std::size_t i = 0; i < keys_; ++i) all.push_back(sha256(std::to_string(i)));
    return all;
  }

  Quiescence quiescence_;
  KeyMap map_;
  test::Records records_;
  std::size_t keys_;
  std::uint64_t seed_;
  std::vector<Digest> digests_ = all_digests();
  std::vector<const Record*> rows_;
  std::vector<const Record*> spares_;
  std::atomic<std::size_t> come_{0};
  std::atomic<std::size_t> going_{0};
  std::atomic<bool> done_{false};
};

TEST_P(KeyMapUnderReaders, LosesNoKeyWhileItGrowsAndShrinks) {
  const char* text = std::getenv("LATCHKEY_STRESS_SECONDS");
  const auto deadline = std::chrono::steady_clock::now() +
                        std::chrono::seconds(text != nullptr ? std::atoi(text) : 0);
  std::uint64_t round = 0;
  do {
    ComeAndGo(GetParam(), GetParam().keys, 1000 * ++round).run();
  } while (!HasFailure() && (round < 5 || std::chrono::steady_clock::now() < deadline));
}

// Ten million keys come and ten million go, at a constant number of rows: what the process holds
// at the end is what it held when things had settled.
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
