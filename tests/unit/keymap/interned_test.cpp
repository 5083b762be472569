// Shared parts of records: tenants, which live as long as their records, and the sets of pointers
// that find them. Scope sets: key_set_test.cpp.
#include "keymap/interned.h"

#include <gtest/gtest.h>

#include <deque>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "tests/unit/support/helpers.h"

namespace latchkey {
namespace {

using test::Random;

// ---- tenants

class TenantsTest : public testing::Test {
 protected:
  // The same steps as KeySetWriter.
  const Record* make(std::string_view tenant) {
    RecordFacts facts;
    facts.key_id = "1";
    facts.tenant = tenant;
    return Record::make(slab_, facts, tenants_.intern(tenant));
  }
  void destroy(const Record* record) {
    const SharedClaim* tenant = record->tenant();
    Record::destroy(slab_, record);
    tenants_.released(tenant);
  }

  Slab slab_;
  Tenants tenants_{slab_};
};

TEST_F(TenantsTest, StandOnceForAllTheirRecords) {
  const Record* one = make("acme");
  const Record* two = make(std::string("acme"));
  const Record* other = make("acme2");
  EXPECT_EQ(one->tenant(), two->tenant());
  EXPECT_NE(one->tenant(), other->tenant());
  EXPECT_EQ(one->tenant()->value(), "acme");
  EXPECT_EQ(other->tenant()->value(), "acme2");
  EXPECT_EQ(one->tenant()->users, 2U);
  EXPECT_EQ(other->tenant()->users, 1U);
  EXPECT_EQ(tenants_.size(), 2U);
}

TEST_F(TenantsTest, GoWithTheirLastRecord) {
  const Record* kept = make("kept");
  const std::size_t used = slab_.used_bytes();
  const Record* one = make("acme");
  const Record* two = make("acme");
  const void* memory = one->tenant();
  destroy(one);
  EXPECT_EQ(tenants_.size(), 2U);
  EXPECT_EQ(two->tenant()->value(), "acme");
  EXPECT_EQ(two->tenant()->users, 1U);
  destroy(two);
  EXPECT_EQ(tenants_.size(), 1U);
  EXPECT_EQ(slab_.used_bytes(), used);

  const Record* next = make("evil");
  EXPECT_EQ(static_cast<const void*>(next->tenant()), memory) << "its memory is used again";
  EXPECT_EQ(next->tenant()->value(), "evil");
  EXPECT_EQ(next->tenant()->users, 1U);
  EXPECT_NE(make("acme")->tenant(), next->tenant());
  EXPECT_EQ(kept->tenant()->value(), "kept");
}

TEST_F(TenantsTest, AreEncodedAsAnAnswerCarriesThem) {
  using namespace std::string_literals;
  const std::string longest(LATCHKEY_CLAIMS_BYTES_MAX - 2 * LATCHKEY_CLAIM_BYTES - 1, 't');
  for (const std::string& tenant : {"acme"s, "a\0b"s, std::string(300, '3'), longest}) {
    const std::string wire = {static_cast<char>(LATCHKEY_CLAIM_TENANT),
                              static_cast<char>(tenant.size() % 256),
                              static_cast<char>(tenant.size() / 256)};
    EXPECT_EQ(as_text(make(tenant)->tenant()->encoded()), wire + tenant);
  }
}

TEST_F(TenantsTest, TellAnEmptyTenantFromNone) {
  const Record* empty = make("");
  ASSERT_NE(empty->tenant(), nullptr);
  EXPECT_EQ(empty->tenant()->value(), "");
  EXPECT_EQ(as_text(empty->tenant()->encoded()), std::string_view("\4\0\0", 3));
  EXPECT_EQ(make(std::string_view())->tenant(), empty->tenant());
  EXPECT_EQ(tenants_.size(), 1U);
  EXPECT_EQ(Record::make(slab_, RecordFacts{}, nullptr)->tenant(), nullptr);
}

TEST_F(TenantsTest, ComeAndGoByTheThousandAndLeaveNothing) {
  Random random;
  std::unordered_map<std::string, std::uint32_t> model;
  std::vector<const Record*> records;
  const auto destroy_any = [&] {
    std::swap(records[random.below(records.size())], records.back());
    const std::string tenant(records.back()->tenant()->value());
    destroy(records.back());
    records.pop_back();
    if (--model.at(tenant) == 0) model.erase(tenant);
  };
  for (int step = 0; step < 60'000; ++step) {
    if (records.size() > 10'000 && random.below(2) == 0) {
      destroy_any();
    } else {
      const std::size_t number = random.below(20'000);
      const std::string tenant = std::to_string(number) + std::string(number % 100, '.');
      records.push_back(make(tenant));
      ASSERT_EQ(records.back()->tenant()->value(), tenant);
      ASSERT_EQ(records.back()->tenant()->users, ++model[tenant]);
    }
    ASSERT_EQ(tenants_.size(), model.size());
  }
  while (!records.empty()) destroy_any();
  EXPECT_EQ(tenants_.size(), 0U);
  EXPECT_EQ(slab_.used_bytes(), 0U);
}

// ---- sets of pointers

struct Word {
  std::string text;
};

struct Spread {
  static constexpr std::size_t kWords = 2000;
  static std::size_t of(std::string_view text) { return std::hash<std::string_view>()(text); }
};
// A set that compares only hashes, or the 32 bits of them that it stores, mistakes one word for
// another.
struct Alike {
  static constexpr std::size_t kWords = 200;
  static std::size_t of(std::string_view text) { return (text.size() << 48) + text.size() % 2; }
};

template <typename Function>
struct Hash {
  using is_transparent = void;
  std::size_t operator()(std::string_view text) const { return Function::of(text); }
  std::size_t operator()(const Word* word) const { return Function::of(word->text); }
};
struct Equal {
  using is_transparent = void;
  static std::string_view text(std::string_view text) { return text; }
  static std::string_view text(const Word* word) { return word->text; }
  template <typename A, typename B>
  bool operator()(const A& a, const B& b) const {
    return text(a) == text(b);
  }
};
template <typename Function>
using Set = ShardedSet<Word, Hash<Function>, Equal, 16>;  // few objects split many shards

template <typename Function>
class ShardedSetTest : public testing::Test {};
using Functions = testing::Types<Spread, Alike>;
TYPED_TEST_SUITE(ShardedSetTest, Functions);

template <typename Function>
void agrees_with_a_model(std::size_t reserved) {
  Random random;
  std::unordered_map<std::string, std::unique_ptr<Word>> model;  // owns the objects in the set
  Set<Function> set;
  set.reserve(reserved);
  for (int step = 0; step < 30'000; ++step) {
    // Up and down: shards grow, and empty buckets come to lie among full ones.
    const bool rises = step / 5000 % 2 == 0;
    const std::string text = std::to_string(random.below(Function::kWords));
    const auto known = model.find(text);
    const Word* word = known == model.end() ? nullptr : known->second.get();
    ASSERT_EQ(set.find(std::string_view(text)), word);
    const Word twin{text};
    if (word == nullptr) {
      if (!rises && random.below(4) > 0) continue;
      auto& fresh = model[text] = std::make_unique<Word>(Word{text});
      ASSERT_EQ(set.insert(fresh.get()), nullptr);
    } else if (random.below(3) == 0) {
      ASSERT_EQ(set.insert(&twin), word) << "the one that is there stays";
    } else if (random.below(2) == 0) {
      auto fresh = std::make_unique<Word>(Word{text});
      set.replace(word, fresh.get());
      known->second = std::move(fresh);
    } else if (!rises || random.below(4) == 0) {
      set.erase(word);
      model.erase(known);
    }
    ASSERT_EQ(set.size(), model.size());
    if (step % 1000 != 0) continue;
    std::unordered_set<const Word*> visited;
    set.for_each([&](const Word* visit) {
      EXPECT_TRUE(visited.insert(visit).second) << visit->text << " a second time";
    });
    ASSERT_EQ(visited.size(), model.size());
    for (const auto& [key, owner] : model) ASSERT_TRUE(visited.contains(owner.get())) << key;
    // All of them at once, and some absent ones.
    std::vector<std::string> texts;
    for (std::size_t i = 0; i <= Function::kWords; ++i) texts.push_back(std::to_string(i));
    const std::vector<std::string_view> keys(texts.begin(), texts.end());
    std::vector<const Word*> found(keys.size(), &twin);
    set.find(std::span(keys), std::span(found));
    for (std::size_t i = 0; i < keys.size(); ++i) {
      ASSERT_EQ(found[i], set.find(keys[i])) << keys[i];
    }
  }
}

TYPED_TEST(ShardedSetTest, AgreesWithAModel) { agrees_with_a_model<TypeParam>(0); }
// An estimate may be arbitrarily wrong.
TYPED_TEST(ShardedSetTest, AgreesWithAModelThatWasReservedTooSmall) {
  agrees_with_a_model<TypeParam>(TypeParam::kWords / 8);
}
TYPED_TEST(ShardedSetTest, AgreesWithAModelThatWasReservedTooLarge) {
  agrees_with_a_model<TypeParam>(10 * TypeParam::kWords);
}

TEST(ShardedSet, KnowsWhereItsSetsHaveTheirBuckets) {
  Slab slab;
  Buckets buckets;
  struct Itself {
    std::size_t operator()(std::size_t number) const { return number; }
  };
  tsl::robin_set<std::size_t, Itself, std::equal_to<>, BucketAllocator<std::size_t>, true> set{
      BucketAllocator<std::size_t>(slab, buckets)};
  EXPECT_EQ(buckets.at(1), nullptr);
  for (std::size_t number = 0; number < 5000; ++number) {  // the set moves several times
    set.insert(number);
    // Nothing collides: each is found where its search begins.
    for (const std::size_t known : {std::size_t{0}, number / 2, number}) {
      const auto* stored = reinterpret_cast<const std::byte*>(&*set.find(known));
      ASSERT_GE(stored, buckets.at(known)) << known << " of " << number;
      ASSERT_LT(stored, buckets.at(known) + buckets.bytes_each) << known << " of " << number;
    }
  }
  EXPECT_EQ(set.bucket_count(), buckets.count);
}

TEST(ShardedSet, KeepsTheLayoutOfWhatWasReserved) {
  ShardedSet<Word, Hash<Spread>, Equal, 64> set;
  constexpr std::size_t kWords = 10'000;
  set.reserve(kWords);
  const std::size_t parts = set.parts();
  EXPECT_EQ(parts, 256U);
  std::deque<Word> words;
  while (words.size() < kWords) set.insert(&words.emplace_back(std::to_string(words.size())));
  EXPECT_LE(set.parts(), parts + 2) << "hashes spread as they like";
  set.reserve(100 * kWords);
  EXPECT_LE(set.parts(), parts + 2) << "only a new set is laid out";
  EXPECT_EQ(set.size(), kWords);
}

TEST(ShardedSet, TakesTwentyToFortyBytesForEachObject) {
  ShardedSet<Word, Hash<Spread>, Equal> set;
  std::deque<Word> words;
  while (words.size() < 50'000) {
    set.insert(&words.emplace_back(std::to_string(words.size())));
    if (words.size() % 10'000 != 0) continue;
    EXPECT_GE(set.bytes(), 20 * set.size());
    EXPECT_LE(set.bytes(), 41 * set.size());
  }
}

}  // namespace
}  // namespace latchkey
