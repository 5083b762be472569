// The number of one source's rows with keys that other sources hold too.
#include "loader/overlap.h"

#include <gtest/gtest.h>

#include <atomic>
#include <memory>
#include <string>
#include <thread>

#include "tests/unit/support/helpers.h"

namespace latchkey {
namespace {

using test::row;

struct Table {
  explicit Table(const std::string& name, Quiescence& quiescence)
      : keys(name, quiescence), writer(keys, quiescence) {}
  // Adds rows with the numbers from `first` to before `last` as ids and keys.
  void fill(int first, int last) {
    for (int i = first; i < last; ++i) {
      const std::string text = std::to_string(i);
      writer.upsert(row(text, "key " + text));
    }
  }
  KeySet keys;
  KeySetWriter writer;
};

class Overlap : public testing::Test {
 protected:
  // The number of rows of `a_` with a key that each of `others` holds.
  std::vector<std::uint64_t> shared(const std::vector<const KeySet*>& others) {
    OverlapWalk walk(a_.writer, others);
    steps_ = 1;
    while (walk.step(quiescence_)) ++steps_;
    std::vector<std::uint64_t> counts;
    for (std::size_t i = 0; i < others.size(); ++i) {
      EXPECT_EQ(walk.shared()[i].with, others[i]);
      counts.push_back(walk.shared()[i].rows);
    }
    return counts;
  }
  using Counts = std::vector<std::uint64_t>;

  Quiescence quiescence_;
  Table a_{"a", quiescence_};
  Table b_{"b", quiescence_};
  Table c_{"c", quiescence_};
  int steps_ = 0;
};

TEST_F(Overlap, IsNoneWhereThereIsNothing) {
  EXPECT_EQ(shared({}), Counts{});
  EXPECT_EQ(shared({&b_.keys}), Counts{0});
  a_.fill(0, 100);
  EXPECT_EQ(shared({&b_.keys}), Counts{0});
  b_.fill(100, 200);
  EXPECT_EQ(shared({&b_.keys}), Counts{0});
}

TEST_F(Overlap, IsCountedForEachOther) {
  for (const int size : {1, 63, 64, 65, 200}) {
    a_.fill(0, size);
    b_.fill(size - 1, size);
    c_.fill(0, size);
    EXPECT_EQ(shared({&b_.keys, &c_.keys})[1], static_cast<std::uint64_t>(size));
  }
  EXPECT_EQ(shared({&c_.keys, &b_.keys}), (Counts{200, 5}));
}

TEST_F(Overlap, IsOfRowsOfAnyState) {
  a_.writer.upsert(row("1", "k", RowState::kRevoked));
  b_.writer.upsert(row("7", "k"));
  EXPECT_EQ(shared({&b_.keys}), Counts{1});
}

TEST_F(Overlap, IsFoundInPartsThatDoNotHoldTheThreadForLong) {
  a_.fill(0, 50'000);
  b_.fill(25'000, 75'000);
  EXPECT_EQ(shared({&b_.keys}), Counts{25'000});
  EXPECT_GE(steps_, 50'000 / 3276);
}

// Rows inserted or removed during the walk may be counted or not; the walk must not fail
// otherwise.
TEST_F(Overlap, SurvivesChangesBetweenItsSteps) {
  a_.fill(0, 20'000);
  b_.fill(0, 20'000);
  OverlapWalk walk(a_.writer, {&b_.keys});
  int next = 20'000;
  for (int i = 0; walk.step(quiescence_); ++i) {
    a_.fill(next, next + 500);
    next += 500;
    a_.writer.remove(std::to_string(i));
    a_.writer.collect();
    ASSERT_LT(next, 1'000'000) << "never ends";
  }
  EXPECT_GE(walk.shared()[0].rows, 20'000U - 200U);
}

// Another loader's thread frees and replaces records during the walk: a reader's section keeps
// them.
TEST_F(Overlap, ReadsMapsThatOtherThreadsWrite) {
  a_.fill(0, 30'000);
  b_.fill(0, 5'000);
  std::atomic<bool> done{false};
  std::thread writer([&] {
    for (int round = 0; !done; ++round) {
      for (int i = 5'000; i < 15'000; ++i) {
        const std::string text = std::to_string(i);
        if (round % 2 == 0) {
          b_.writer.upsert(row(text, "key " + text));
        } else {
          b_.writer.remove(text);
        }
      }
      b_.writer.collect();
    }
  });
  for (int i = 0; i < 5; ++i) {
    const std::uint64_t rows = shared({&b_.keys})[0];
    EXPECT_GE(rows, 5'000U);
    EXPECT_LE(rows, 15'000U);
  }
  done = true;
  writer.join();
}

}  // namespace
}  // namespace latchkey
