// The status is made at most once per period, for any number of requests.
#include "daemon/observe/status_cache.h"

#include <gtest/gtest.h>

#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

namespace latchkey {
namespace {

constexpr std::int64_t kMs = 1'000'000;

Rights everything() {
  return {.sources = 0b11, .all_sources = true, .reasons = true, .metadata = true};
}
Rights some(SourceMask sources) { return {.sources = sources}; }

struct StatusCacheTest : testing::Test {
  StatusCache cache{[this](const Rights&) {
    if (fails) throw std::runtime_error("no memory");
    return std::to_string(++made);
  }};
  int made = 0;
  bool fails = false;
  std::string text(const Rights& rights, std::int64_t ms) { return *cache.text(rights, ms * kMs); }
};

TEST_F(StatusCacheTest, IsMadeAtMostEveryTenthOfASecond) {
  EXPECT_EQ(text(everything(), 1000), "1") << "at once for one who asks now and then";
  for (int ms = 1000; ms < 1100; ++ms) EXPECT_EQ(text(everything(), ms), "1");
  EXPECT_EQ(text(everything(), 1100), "2");
  EXPECT_EQ(text(everything(), 1199), "2");
  EXPECT_EQ(text(everything(), 5000), "3");
}

TEST_F(StatusCacheTest, IsMadeForEachViewByItself) {
  EXPECT_EQ(text(everything(), 1000), "1");
  EXPECT_EQ(text(some(0b01), 1000), "2");
  EXPECT_EQ(text(some(0b10), 1000), "3");
  Rights silent = everything();  // all sources, but no reasons: the short status
  silent.reasons = false;
  EXPECT_EQ(text(silent, 1000), "4");
  EXPECT_EQ(text(some(0b11), 1000), "4") << "two rules that give the same view share it";
  Rights no_metadata = everything();
  no_metadata.metadata = false;
  EXPECT_EQ(text(no_metadata, 1000), "1");
}

TEST_F(StatusCacheTest, ForgetsViewsThatAreTooMany) {
  for (SourceMask sources = 0; sources < 1000; ++sources) (void)text(some(sources), 1000);
  EXPECT_EQ(made, 1000);
  EXPECT_EQ(text(some(999), 1001), "1000");
}

TEST_F(StatusCacheTest, TellsTheOldOneWhereANewOneCannotBeMade) {
  EXPECT_EQ(text(everything(), 1000), "1");
  fails = true;
  EXPECT_THROW((void)text(everything(), 1200), std::runtime_error);
  EXPECT_EQ(text(everything(), 1250), "1");
  fails = false;
  EXPECT_EQ(text(everything(), 1300), "2");
}

TEST(StatusCacheThreads, GivesOthersTheOldOneWhileANewOneIsMade) {
  std::vector<std::string> told;
  StatusCache* self = nullptr;
  int made = 0;
  StatusCache cache([&](const Rights& rights) {
    // Another worker asks meanwhile; it must neither wait nor make a second status.
    if (++made == 2) {
      std::thread([&] { told.push_back(*self->text(rights, 1150 * kMs)); }).join();
    }
    return std::to_string(made);
  });
  self = &cache;
  EXPECT_EQ(*cache.text(everything(), 1000 * kMs), "1");
  EXPECT_EQ(*cache.text(everything(), 1150 * kMs), "2");
  EXPECT_EQ(told, std::vector<std::string>{"1"});
}

}  // namespace
}  // namespace latchkey
