// The memory that sections hold back, for how long, and the readers named when it takes too long.
// One thread: concurrency_test.cpp adds threads.
#include "keymap/quiescence.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "tests/unit/support/helpers.h"

namespace latchkey {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;
using testing::UnorderedElementsAre;
using Reader = Quiescence::Reader;

bool held(const Quiescence& quiescence, std::uint64_t stamp) {
  return stamp >= quiescence.safe_before();
}

TEST(Quiescence, LetsGoAtOnceWhileNobodyReads) {
  Quiescence quiescence;
  EXPECT_FALSE(held(quiescence, quiescence.stamp())) << "without readers";
  const Reader one(quiescence), two(quiescence);
  for (int i = 0; i < 100; ++i) {
    EXPECT_FALSE(held(quiescence, quiescence.stamp())) << "readers offline hold nothing";
  }
}

TEST(Quiescence, HoldsWhatASectionCanSeeUntilItEnds) {
  Quiescence quiescence;
  Reader reader(quiescence);
  const std::uint64_t before = quiescence.stamp();
  auto section = std::make_unique<ReadSection>(reader);
  EXPECT_FALSE(held(quiescence, before)) << "it was gone when the section began";
  const std::uint64_t first = quiescence.stamp(), second = quiescence.stamp();
  EXPECT_LT(first, second);
  EXPECT_TRUE(held(quiescence, first));
  EXPECT_TRUE(held(quiescence, second));
  section.reset();
  EXPECT_FALSE(held(quiescence, first));
  EXPECT_FALSE(held(quiescence, second));
}

TEST(Quiescence, WaitsForTheOldestSectionOnly) {
  Quiescence quiescence;
  Reader early_reader(quiescence), late_reader(quiescence);
  auto early = std::make_unique<ReadSection>(early_reader);
  const std::uint64_t first = quiescence.stamp();
  auto late = std::make_unique<ReadSection>(late_reader);
  const std::uint64_t second = quiescence.stamp();
  early.reset();
  EXPECT_FALSE(held(quiescence, first)) << "the section that runs began later";
  EXPECT_TRUE(held(quiescence, second));
  const ReadSection again(early_reader);
  EXPECT_TRUE(held(quiescence, second));
  late.reset();
  EXPECT_FALSE(held(quiescence, second)) << "both read, but neither since then";
}

TEST(Quiescence, NamesExactlyTheReadersThatHoldAStampBack) {
  Quiescence quiescence;
  Reader a(quiescence, "a"), b(quiescence, "b"), c(quiescence, "c"), idle(quiescence, "idle");
  auto in_a = std::make_unique<ReadSection>(a);
  const std::uint64_t first = quiescence.stamp();
  auto in_b = std::make_unique<ReadSection>(b);
  const std::uint64_t second = quiescence.stamp();
  const auto in_c = std::make_unique<ReadSection>(c);
  EXPECT_THAT(quiescence.holders_of(first), ElementsAre("a"));
  EXPECT_THAT(quiescence.holders_of(second), UnorderedElementsAre("a", "b"));
  in_a.reset();
  EXPECT_THAT(quiescence.holders_of(first), IsEmpty());
  EXPECT_THAT(quiescence.holders_of(second), ElementsAre("b"));
}

TEST(Quiescence, GivesASeatToAnotherReader) {
  Quiescence quiescence;
  for (std::size_t i = 0; i < 2 * Quiescence::kReadersMax; ++i) {
    const std::string name = "worker " + std::to_string(i);
    Reader reader(quiescence, name);
    const std::uint64_t before = quiescence.stamp();
    EXPECT_FALSE(held(quiescence, before)) << "nothing is left of the one before";
    const ReadSection section(reader);
    EXPECT_THAT(quiescence.holders_of(quiescence.stamp()), ElementsAre(name));
  }
  EXPECT_FALSE(held(quiescence, quiescence.stamp())) << "a free seat holds nothing";
}

TEST(Quiescence, AgreesWithAModelWhileReadersComeAndGo) {
  struct Worker {
    std::string name;
    std::unique_ptr<Reader> reader;
    std::optional<ReadSection> section;
    std::size_t began = 0;  // the number of stamps before it
  };
  test::Random random;
  Quiescence quiescence;
  std::vector<Worker> workers(8);
  std::vector<std::uint64_t> stamps;
  for (int step = 0; step < 20'000; ++step) {
    Worker& worker = workers[random.below(workers.size())];
    if (random.below(3) == 0) {
      stamps.push_back(quiescence.stamp());
    } else if (worker.reader == nullptr) {
      worker.name = std::to_string(step);
      worker.reader = std::make_unique<Reader>(quiescence, worker.name);
    } else if (worker.section) {
      worker.section.reset();
    } else if (random.below(4) == 0) {
      worker.reader.reset();
    } else {
      worker.section.emplace(*worker.reader);
      worker.began = stamps.size();
    }
    if (stamps.empty()) continue;
    const std::size_t recent = std::min<std::size_t>(stamps.size(), 20);
    const std::size_t asked = stamps.size() - 1 - random.below(recent);
    std::vector<std::string> holders;
    for (const Worker& other : workers) {
      if (other.section && other.began <= asked) holders.push_back(other.name);
    }
    ASSERT_EQ(held(quiescence, stamps[asked]), !holders.empty()) << "step " << step;
    ASSERT_THAT(quiescence.holders_of(stamps[asked]), testing::UnorderedElementsAreArray(holders));
  }
}

// ---- stalls

class StallWatchTest : public testing::Test {
 protected:
  static constexpr std::int64_t kLimit = StallWatch::kLimitNs;
  static constexpr std::int64_t kStart = -kLimit / 3;  // clocks may start at any value

  // "READER READER for NS", or "".
  std::string look(std::optional<std::uint64_t> oldest, std::int64_t after_ns) {
    const auto stall = watch_.look(quiescence_, oldest, kStart + after_ns);
    if (!stall) return "";
    std::string text;
    for (const std::string& reader : stall->readers) text += reader + ' ';
    return text + "for " + std::to_string(stall->for_ns);
  }

  Quiescence quiescence_;
  StallWatch watch_;
  Reader a_{quiescence_, "a"}, b_{quiescence_, "b"}, c_{quiescence_, "c"};
  std::optional<ReadSection> in_a_, in_b_;
};

TEST_F(StallWatchTest, SaysNothingWhileNothingWaits) {
  in_a_.emplace(a_);
  for (std::int64_t time : {std::int64_t{0}, kLimit, 100 * kLimit}) {
    EXPECT_EQ(look(std::nullopt, time), "");
  }
  const std::uint64_t stamp = quiescence_.stamp();
  EXPECT_EQ(look(stamp, 200 * kLimit), "") << "it has only begun to wait";
  EXPECT_EQ(look(stamp, 201 * kLimit - 1), "");
  EXPECT_EQ(look(std::nullopt, 201 * kLimit), "");
}

TEST_F(StallWatchTest, NamesWhoHoldsBackAsSoonAsTheLimitIsReached) {
  in_a_.emplace(a_);
  in_b_.emplace(b_);
  const std::uint64_t stamp = quiescence_.stamp();
  const ReadSection later(c_);
  EXPECT_EQ(look(stamp, 0), "");
  EXPECT_EQ(look(stamp, kLimit - 1), "");
  EXPECT_EQ(look(stamp, kLimit), "a b for " + std::to_string(kLimit));
  in_a_.reset();
  EXPECT_EQ(look(stamp, 5 * kLimit), "b for " + std::to_string(5 * kLimit));
}

TEST_F(StallWatchTest, StartsItsClockAnewWithEachStepForward) {
  in_a_.emplace(a_);
  const std::uint64_t first = quiescence_.stamp();
  in_b_.emplace(b_);
  const std::uint64_t second = quiescence_.stamp();
  EXPECT_EQ(look(first, 0), "");
  in_a_.reset();
  EXPECT_EQ(look(second, kLimit), "") << "what waited is gone";
  EXPECT_EQ(look(second, 2 * kLimit - 1), "");
  EXPECT_EQ(look(second, 2 * kLimit), "b for " + std::to_string(kLimit));
}

TEST_F(StallWatchTest, SaysNothingOnceTheSectionHasEnded) {
  in_a_.emplace(a_);
  const std::uint64_t stamp = quiescence_.stamp();
  EXPECT_EQ(look(stamp, 0), "");
  EXPECT_NE(look(stamp, kLimit), "");
  in_a_.reset();
  EXPECT_EQ(look(stamp, 2 * kLimit), "") << "not collected yet, but held by nobody";
  in_a_.emplace(a_);
  EXPECT_EQ(look(stamp, 3 * kLimit), "") << "the next section began later";
}

TEST(Quiescence, RefusesMoreReadersThanItHasSeats) {
  Quiescence quiescence;
  std::vector<std::unique_ptr<Quiescence::Reader>> readers;
  for (std::size_t i = 0; i < Quiescence::kReadersMax; ++i) {
    readers.push_back(std::make_unique<Quiescence::Reader>(quiescence));
  }
  EXPECT_THROW(Quiescence::Reader{quiescence}, std::length_error);
  readers.pop_back();
  EXPECT_NO_THROW(Quiescence::Reader{quiescence}) << "a seat that was given back is free again";
}

}  // namespace
}  // namespace latchkey
