// The slab from the outside: sizes, blocks that do not overlap, memory that is reused and given
// back.
#include "keymap/slab.h"

#include <gtest/gtest.h>
#include <sys/resource.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <new>
#include <set>
#include <vector>

#include "tests/unit/support/helpers.h"

namespace latchkey {
namespace {

using test::Random;

constexpr std::size_t kPage = 4096;
constexpr std::size_t kMiB = std::size_t{1} << 20;

std::uintptr_t address(const void* block) { return reinterpret_cast<std::uintptr_t>(block); }

std::vector<std::size_t> rounded_sizes(std::size_t last) {
  std::vector<std::size_t> sizes;
  for (std::size_t bytes = 1; bytes <= last; bytes = sizes.back() + 1) {
    sizes.push_back(Slab::rounded(bytes));
  }
  return sizes;
}

TEST(Slab, RoundsEverySizeUpByLittle) {
  std::size_t before = 0;
  for (std::size_t bytes = 1; bytes <= 2 * kMiB + 3 * kPage; ++bytes) {
    const std::size_t rounded = Slab::rounded(bytes);
    ASSERT_GE(rounded, bytes);
    ASSERT_GE(rounded, before) << bytes << ": a larger block must not take less";
    ASSERT_EQ(rounded % Slab::kAlignment, 0U) << bytes;
    ASSERT_EQ(Slab::rounded(rounded), rounded) << bytes << ": what is rounded stays so";
    if (bytes <= kMiB) {
      ASSERT_LE(rounded - bytes, std::max<std::size_t>(31, rounded / 5)) << bytes;
    } else {
      ASSERT_EQ(rounded % kPage, 0U) << bytes;
    }
    before = rounded;
  }
}

TEST(Slab, AllocatesEachOfItsSizesAndUsesTheBlockAgain) {
  Slab slab;
  const std::vector<std::size_t> sizes = rounded_sizes(kMiB);
  std::vector<void*> blocks;
  for (const std::size_t bytes : sizes) {
    blocks.push_back(slab.allocate(bytes));
    std::memset(blocks.back(), 1, bytes);
  }
  for (std::size_t i = 0; i < sizes.size(); ++i) slab.free(blocks[i], sizes[i]);
  const std::size_t mapped = slab.mapped_bytes();
  // Backwards, and with the smallest request that is rounded to the size: each size has its own
  // list.
  for (std::size_t i = sizes.size(); i-- > 0;) {
    EXPECT_EQ(slab.allocate(i == 0 ? 1 : sizes[i - 1] + 1), blocks[i]) << sizes[i];
  }
  EXPECT_EQ(slab.mapped_bytes(), mapped);
}

struct Block {
  std::uint8_t* start;
  std::size_t bytes;
  std::uint8_t content;

  [[nodiscard]] bool is_whole() const {
    return start[0] == content && std::memcmp(start, start + 1, bytes - 1) == 0;
  }
};

TEST(Slab, KeepsBlocksOutOfEachOthersWay) {
  Random random;
  Slab slab;
  std::vector<Block> blocks;
  std::size_t used = 0;
  const auto free_any = [&] {
    std::swap(blocks[random.below(blocks.size())], blocks.back());
    const Block block = blocks.back();
    blocks.pop_back();
    ASSERT_TRUE(block.is_whole()) << block.bytes;
    slab.free(block.start, block.bytes);
    used -= Slab::rounded(block.bytes);
  };
  for (int step = 0; step < 20'000; ++step) {
    if (!blocks.empty() && (blocks.size() == 400 || random.below(5) < 2)) {
      ASSERT_NO_FATAL_FAILURE(free_any());
    } else {
      // All magnitudes up to 8 KiB with equal chance; sometimes a block that is mapped alone.
      const std::size_t magnitude = std::size_t{1} << (step % 1000 == 0 ? 21 : random.below(14));
      const std::size_t bytes = 1 + random.below(magnitude);
      blocks.push_back({static_cast<std::uint8_t*>(slab.allocate(bytes)), bytes,
                        static_cast<std::uint8_t>(random.below(256))});
      ASSERT_EQ(address(blocks.back().start) % Slab::kAlignment, 0U) << bytes;
      std::memset(blocks.back().start, blocks.back().content, bytes);
      used += Slab::rounded(bytes);
    }
    ASSERT_EQ(slab.used_bytes(), used);
    ASSERT_GE(slab.mapped_bytes(), used);
  }
  while (!blocks.empty()) ASSERT_NO_FATAL_FAILURE(free_any());
  EXPECT_EQ(slab.used_bytes(), 0U);
}

TEST(Slab, MapsNothingMoreForAPopulationThatStaysAsLarge) {
  Random random;
  Slab slab;
  std::vector<std::size_t> sizes;
  for (int i = 0; i < 2000; ++i) sizes.push_back(1 + random.below(3000));
  sizes.push_back(kMiB + 1);
  std::vector<Block> blocks;
  std::set<std::uintptr_t> memory;
  std::size_t mapped = 0;
  for (int generation = 0; generation < 20; ++generation) {
    for (std::size_t i = sizes.size(); i-- > 1;) std::swap(sizes[i], sizes[random.below(i + 1)]);
    for (const std::size_t bytes : sizes) {
      blocks.push_back({static_cast<std::uint8_t*>(slab.allocate(bytes)), bytes, 0});
      if (bytes <= kMiB) memory.insert(address(blocks.back().start));
    }
    if (generation == 0) mapped = slab.mapped_bytes();
    ASSERT_EQ(slab.mapped_bytes(), mapped);
    for (; !blocks.empty(); blocks.pop_back()) {
      std::swap(blocks[random.below(blocks.size())], blocks.back());
      slab.free(blocks.back().start, blocks.back().bytes);
    }
  }
  EXPECT_EQ(memory.size(), sizes.size() - 1) << "the same blocks over and over";
  EXPECT_EQ(slab.used_bytes(), 0U);
}

TEST(Slab, MapsBigBlocksAloneAndGivesThemBack) {
  Slab slab;
  std::vector<Block> blocks;
  std::size_t mapped = 0;
  for (const std::size_t bytes : {kMiB + 1, 2 * kMiB - 1, 2 * kMiB, 2 * kMiB + 1, 5 * kMiB}) {
    auto* start = static_cast<std::uint8_t*>(slab.allocate(bytes));
    blocks.push_back({start, bytes, static_cast<std::uint8_t>(1 + blocks.size())});
    std::memset(start, blocks.back().content, bytes);
    mapped += Slab::rounded(bytes);
    EXPECT_EQ(slab.mapped_bytes(), mapped) << bytes;
    if (bytes >= 2 * kMiB) {
      EXPECT_EQ(address(start) % (2 * kMiB), 0U) << "where a huge page can be";
    }
  }
  std::swap(blocks[1], blocks[4]);  // neither the first nor the last block is freed first
  for (; !blocks.empty(); blocks.pop_back()) {
    EXPECT_TRUE(blocks.back().is_whole()) << blocks.back().bytes;
    slab.free(blocks.back().start, blocks.back().bytes);
    mapped -= Slab::rounded(blocks.back().bytes);
    EXPECT_EQ(slab.mapped_bytes(), mapped);
  }
  EXPECT_EQ(slab.mapped_bytes(), 0U);
  EXPECT_EQ(slab.used_bytes(), 0U);
}

TEST(Slab, StaysSmallWithFewRecords) {
  Slab slab;
  EXPECT_EQ(slab.mapped_bytes(), 0U);
  for (int i = 0; i < 10; ++i) (void)slab.allocate(96);
  EXPECT_EQ(slab.used_bytes(), 960U);
  EXPECT_LE(slab.mapped_bytes(), 64U << 10);
}

#ifdef __SANITIZE_ADDRESS__
// Records are not malloc blocks: without the slab's poisoning, AddressSanitizer could not check
// them.
TEST(SlabDeathTest, ShowsAddressSanitizerWhatIsNobodys) {
  Slab slab;
  constexpr std::size_t kBytes = 100;
  const auto* fresh = static_cast<const volatile std::uint8_t*>(slab.allocate(kBytes));
  EXPECT_DEATH((void)fresh[kBytes], "use-after-poison|poison");
  void* block = slab.allocate(kBytes);
  slab.free(block, kBytes);
  const auto* freed = static_cast<const volatile std::uint8_t*>(block);
  EXPECT_DEATH((void)freed[0], "use-after-poison|poison");
  EXPECT_DEATH((void)freed[kBytes - 1], "use-after-poison|poison");
  ASSERT_EQ(slab.allocate(kBytes - 1), block);
  EXPECT_EQ(freed[kBytes - 2], freed[kBytes - 2]) << "in use again";
  EXPECT_DEATH((void)freed[kBytes - 1], "use-after-poison|poison");
}
#elif !defined(__SANITIZE_THREAD__)  // a sanitizer dies when it gets no memory
// The loader continues after std::bad_alloc.
TEST(Slab, IsWholeAfterTheSystemRefusedMemory) {
  Slab slab;
  rlimit limit{};
  ASSERT_EQ(getrlimit(RLIMIT_AS, &limit), 0);
  const rlimit nothing{.rlim_cur = 0, .rlim_max = limit.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_AS, &nothing), 0);
  bool refused = false;
  try {
    (void)slab.allocate(96);
  } catch (const std::bad_alloc&) {
    refused = true;
  }
  ASSERT_EQ(setrlimit(RLIMIT_AS, &limit), 0);
  EXPECT_TRUE(refused);
  EXPECT_EQ(slab.used_bytes(), 0U);
  EXPECT_EQ(slab.mapped_bytes(), 0U);
  EXPECT_NE(slab.allocate(96), nullptr);
  EXPECT_GE(slab.mapped_bytes(), slab.used_bytes()) << "nobody mapped what it hands out";
}
#endif

}  // namespace
}  // namespace latchkey
