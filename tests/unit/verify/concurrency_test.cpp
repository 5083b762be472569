// Readers verify while the writer changes all rows. Made for ThreadSanitizer and AddressSanitizer,
// and useful without: each record carries a checksum of its content, and each version of a row is
// greater than the one before.
//
// Bounded by a number of changes (about a second in a release build); LATCHKEY_STRESS_SECONDS
// makes it run for that long.
#include <gtest/gtest.h>

#include <optional>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <functional>
#include <latch>
#include <string>
#include <thread>
#include <vector>

#include "keymap/change_set.h"
#include "tests/unit/support/helpers.h"
#include "verify/verifier.h"

namespace latchkey {
namespace {

using test::Random;

constexpr std::size_t kReaders = 3;
constexpr std::size_t kKeys = 600;
constexpr std::int64_t kNow = 1'000'000'000;

std::string key_text(std::size_t key) { return "key " + std::to_string(key); }

// Subject: the version, and a checksum over id, digest and version, which exposes a mixed record.
std::string subject_of(std::string_view id, const Digest& digest, std::uint64_t version) {
  std::string seal(id);
  seal.append(as_text(digest.bytes)).append(std::to_string(version));
  return std::to_string(version) + ":" + std::to_string(slot_hash(sha256(seal)));
}

// Runs `change(step)` on this thread, and `read(reader number)` on others until the changes end.
class Stress {
 public:
  void run(std::size_t steps, const std::function<void(std::size_t)>& change,
           const std::function<void(std::size_t, Quiescence::Reader&)>& read) {
    std::latch start(kReaders + 1);
    std::atomic<bool> done{false};
    std::vector<std::thread> readers;
    for (std::size_t number = 0; number < kReaders; ++number) {
      readers.emplace_back([&, number] {
        Quiescence::Reader reader(quiescence);
        start.arrive_and_wait();
        while (!done.load(std::memory_order_relaxed) && !testing::Test::HasFailure()) {
          read(number, reader);
        }
      });
    }
    start.arrive_and_wait();
    const auto deadline = std::chrono::steady_clock::now() + seconds();
    for (std::size_t step = 0; step < steps || std::chrono::steady_clock::now() < deadline;
         ++step) {
      if (testing::Test::HasFailure()) break;
      change(step);
      if (step % 16 == 0) writer.collect();
    }
    done = true;
    for (std::thread& reader : readers) reader.join();
    writer.collect();
    EXPECT_EQ(writer.retired(), 0U) << "with the readers gone, nothing may be left to free";
    EXPECT_EQ(keys.map.retired(), 0U);
  }

  Quiescence quiescence;
  KeySet keys{"source", quiescence};
  KeySetWriter writer{keys, quiescence};
  Verifier verifier{{Digester()}, {{&keys, {0}}}, FreshnessLimits{}};

 private:
  static std::chrono::seconds seconds() {
    const char* text = std::getenv("LATCHKEY_STRESS_SECONDS");
    return std::chrono::seconds(text != nullptr ? std::atoi(text) : 0);
  }
};

// A table of kKeys rows, which the writer changes one after the other.
class Rows {
 public:
  Rows() {
    for (std::size_t key = 0; key < kKeys; ++key) digests.push_back(sha256(key_text(key)));
  }
  struct Row {
    std::string id;
    std::string subject;
    std::string tenant;
    Digest digest;
    RowState state;
    [[nodiscard]] RecordFacts facts() const {
      RecordFacts facts;
      facts.digest = digest;
      facts.state = state;
      facts.key_id = id;
      facts.subject = subject;
      facts.tenant = tenant;
      return facts;
    }
  };
  // Tenants live as long as their last record, so each version has one of a few.
  [[nodiscard]] Row make(std::size_t key, std::uint64_t version, RowState state) const {
    const std::string id = std::to_string(key);
    return {id, subject_of(id, digests[key], version), tenant_of(version), digests[key], state};
  }
  // The version of a record; its checksum must be right.
  std::uint64_t check(const Record& record, std::size_t key) const {
    const std::string subject = test::claim_of(record.claims(), LATCHKEY_CLAIM_SUBJECT);
    const std::uint64_t version = std::stoull(subject);
    EXPECT_EQ(record.digest(), digests[key]);
    EXPECT_EQ(subject, subject_of(std::to_string(key), digests[key], version));
    if (record.tenant() != nullptr) {  // a refusal made for several rows has no tenant
      EXPECT_EQ(record.tenant()->value(), tenant_of(version));
    }
    return version;
  }
  static std::string tenant_of(std::uint64_t version) { return std::to_string(version % 7 * 1000); }
  std::vector<Digest> digests;
};

// Verifies a batch of random keys and passes each outcome to `see`.
template <typename See>
void verify_batch(const Stress& stress, Random& random, Quiescence::Reader& reader, See see) {
  std::size_t numbers[Verifier::kBatchMax];
  std::string texts[Verifier::kBatchMax];
  Question questions[Verifier::kBatchMax];
  Outcome outcomes[Verifier::kBatchMax];
  const Terms terms;
  for (std::size_t i = 0; i < Verifier::kBatchMax; ++i) {
    numbers[i] = random.below(kKeys);
    texts[i] = key_text(numbers[i]);
    questions[i] = {texts[i], &terms};
  }
  const ReadSection section(reader);
  stress.verifier.verify(questions, {kNow, kNow}, outcomes);
  for (std::size_t i = 0; i < Verifier::kBatchMax; ++i) see(numbers[i], outcomes[i]);
}

std::vector<Random> randoms() {
  std::vector<Random> each;
  for (std::size_t number = 0; number < kReaders; ++number) each.emplace_back(number + 1);
  return each;
}

TEST(Concurrency, ReadersSeeWholeRecordsWhileRowsComeAndGo) {
  Stress stress;
  const Rows rows;
  stress.keys.freshness.prove(kNow);
  Random random;
  std::vector<Random> reader_random = randoms();
  std::uint64_t version = 0;
  const auto random_row = [&](std::size_t key) {
    return rows.make(key, ++version, static_cast<RowState>(random.below(4)));
  };
  const auto load = [&](bool finish) {  // of any half of the table
    ChangeSet table(stress.writer, ChangeScope::kTable);
    for (std::size_t key = 0; key < kKeys; ++key) {
      if (random.below(2) == 0) table.stage(random_row(key).facts());
    }
    if (finish) table.apply();
  };
  stress.run(
      60'000,
      [&](std::size_t step) {
        if (step % 1000 == 0) return load(step % 3000 != 0);
        const std::size_t key = random.below(kKeys);
        if (random.below(3) == 0) return stress.writer.remove(std::to_string(key));
        stress.writer.upsert(random_row(key).facts());
      },
      [&](std::size_t number, Quiescence::Reader& reader) {
        verify_batch(stress, reader_random[number], reader,
                     [&](std::size_t key, const Outcome& outcome) {
                       ASSERT_NE(outcome.verdict, LATCHKEY_UNAVAILABLE);
                       if (outcome.record != nullptr) rows.check(*outcome.record, key);
                     });
      });
}

// Linearizable: a reader sees nothing older than the version in force before it asked, than one
// that it has seen itself, or than one that another reader has reported. This is the promise of
// `sync`. Each change of a key, its removal included, has a greater version than the one before.
TEST(Concurrency, ReadersNeverSeeAnOlderVersionThanTheyMust) {
  using Versions = std::vector<std::atomic<std::uint64_t>>;
  Stress stress;
  const Rows rows;
  stress.keys.freshness.prove(kNow);
  Random random;
  std::vector<Random> reader_random = randoms();
  Versions in_force(kKeys);  // the last completed change
  Versions removing(kKeys);  // the last removal begun
  Versions told(kKeys);      // the newest version seen by any reader
  std::uint64_t version = 0;
  const auto remove = [&](std::size_t key) {
    removing[key].store(++version);
    stress.writer.remove(std::to_string(key));
    in_force[key].store(version);
  };
  stress.run(
      100'000,
      [&](std::size_t) {
        const std::size_t key = random.below(kKeys);
        if (random.below(4) == 0) {  // removed for a moment: tombstones, then another slot
          remove(key);
          remove(random.below(kKeys));
        }
        stress.writer.upsert(rows.make(key, ++version, RowState::kActive).facts());
        in_force[key].store(version);
      },
      [&](std::size_t number, Quiescence::Reader& reader) {
        std::vector<std::uint64_t> floor(kKeys);
        for (std::size_t key = 0; key < kKeys; ++key) {
          floor[key] = std::max(told[key].load(), in_force[key].load());
        }
        verify_batch(stress, reader_random[number], reader,
                     [&](std::size_t key, const Outcome& outcome) {
                       if (outcome.record == nullptr) {
                         ASSERT_GE(removing[key].load(), floor[key]) << "nobody has removed it";
                         return;
                       }
                       const std::uint64_t found = rows.check(*outcome.record, key);
                       ASSERT_GE(found, floor[key]);
                       std::uint64_t known = told[key].load();
                       while (known < found && !told[key].compare_exchange_weak(known, found)) {
                       }
                     });
      });
}

bool accepts_k(const Stress& stress, Quiescence::Reader& reader) {
  const ReadSection section(reader);
  const Terms terms;
  const Question question{"k", &terms};
  Outcome outcome;
  stress.verifier.verify({&question, 1}, {kNow, kNow}, {&outcome, 1});
  return outcome.verdict == LATCHKEY_VALID;
}

// A first load rebuilds the map and fills it while readers look: a key that a reader has found
// stays found.
TEST(Concurrency, AKeyOfAFirstLoadIsNotLostWhileItComes) {
  constexpr std::size_t kRounds = 30;
  constexpr std::size_t kRows = 3000;
  for (std::size_t round = 0; round < kRounds && !testing::Test::HasFailure(); ++round) {
    Stress stress;
    std::array<Digest, kReaders> asked;
    for (std::size_t i = 0; i < kReaders; ++i) asked[i] = sha256(key_text(i * kRows / kReaders));
    std::array<bool, kReaders> seen{};
    std::optional<ChangeSet> table;
    stress.run(
        kRows,
        [&](std::size_t step) {
          if (step >= kRows) return;
          if (step == 0) table.emplace(stress.writer, ChangeScope::kFirstTable, round * 500);
          const std::string id = std::to_string(step);
          table->stage(test::row(id, key_text(step)));
          if (step + 1 == kRows) table->apply();
        },
        [&](std::size_t number, Quiescence::Reader& reader) {
          const ReadSection section(reader);
          const Record* found = stress.keys.map.find(asked[number]);
          EXPECT_TRUE(found != nullptr ? found->digest() == asked[number] : !seen[number]);
          seen[number] = found != nullptr;
        });
    EXPECT_EQ(stress.keys.map.size(), kRows);
  }
}

// One key has two rows, and at every instant a reason to refuse it: row 1 is revoked while row 2
// is active; then, in one load, row 1 is removed and row 2 is revoked; then back. Later both are
// active, which refuses the key as ambiguous. A change made in two steps would admit the key in
// between.
TEST(Concurrency, AKeyThatIsRefusedAllTheTimeIsNeverValidInBetween) {
  Stress stress;
  stress.keys.freshness.prove(kNow);
  std::string subject;
  const auto first_row = [&](std::size_t step) {
    subject = std::to_string(step);
    RecordFacts facts = test::row("1", "k");
    facts.subject = subject;  // a different row each time
    facts.state = step % 1000 < 500 ? RowState::kRevoked : RowState::kActive;
    return facts;
  };
  stress.writer.upsert(first_row(0));
  stress.writer.upsert(test::row("2", "k"));
  std::atomic<std::uint64_t> valid{0};
  stress.run(
      60'000,
      [&](std::size_t step) {
        if (step % 4 != 0) return stress.writer.upsert(first_row(step));
        ChangeSet one(stress.writer, ChangeScope::kTable);
        one.stage(test::row("2", "k", RowState::kRevoked));
        one.apply();
        ChangeSet both(stress.writer, ChangeScope::kTable);
        both.stage(first_row(step));
        both.stage(test::row("2", "k"));
        both.apply();
      },
      [&](std::size_t, Quiescence::Reader& reader) {
        if (accepts_k(stress, reader)) ++valid;
      });
  EXPECT_EQ(valid, 0U);
}

// A key of two rows that is refused before and after a batch is refused throughout, in any order
// in which the batch handles the rows: both are removed, both move to other keys, or the refusing
// one moves away while the other is revoked. This holds for loads and for single rows.
TEST(Concurrency, AKeyOfTwoRowsIsNotValidWhileABatchChangesBoth) {
  Stress stress;
  stress.keys.freshness.prove(kNow);
  using Table = std::vector<RecordFacts>;
  constexpr RowState kRevoked = RowState::kRevoked;
  const struct {
    Table before, after;
  } changes[] = {
      {{test::row("1", "k", kRevoked), test::row("2", "k")}, {}},
      {{test::row("1", "k"), test::row("2", "k")}, {}},
      {{test::row("1", "k"), test::row("2", "k")}, {test::row("1", "a"), test::row("2", "b")}},
      {{test::row("1", "k", kRevoked), test::row("2", "k")},
       {test::row("1", "a"), test::row("2", "b")}},
      {{test::row("1", "k", kRevoked), test::row("2", "k")},
       {test::row("1", "a", kRevoked), test::row("2", "k", kRevoked)}},
      {{test::row("2", "k", kRevoked), test::row("1", "k")},
       {test::row("2", "a", kRevoked), test::row("1", "k", kRevoked)}},
  };
  // Other rows prolong the batch.
  std::vector<std::string> ids;
  for (int i = 100; i < 150; ++i) ids.push_back(std::to_string(i));
  const auto load = [&](const Table& rows, bool others) {
    ChangeSet table(stress.writer, ChangeScope::kTable);
    for (const RecordFacts& row : rows) table.stage(row);
    for (const std::string& id : ids) {
      if (others) table.stage(test::row(id, id));
    }
    table.apply();
  };
  const auto reread = [&](const Table& rows) {
    ChangeSet set(stress.writer, ChangeScope::kRows);
    for (const char* id : {"1", "2"}) {
      const auto found = std::ranges::find(rows, id, &RecordFacts::key_id);
      found == rows.end() ? set.gone(id) : set.stage(*found);
    }
    set.apply();
  };
  std::atomic<std::uint64_t> valid{0};
  stress.run(
      20'000,
      [&](std::size_t step) {
        const auto& change = changes[step / 2 % std::size(changes)];
        load({}, true);
        {  // the batch that refuses the key; before it, no key was accepted either
          const KeySetWriter::Batch batch(stress.writer);
          for (const RecordFacts& row : change.before) {
            if (row.state == kRevoked) stress.writer.upsert(row);
          }
          if (change.before[0].state != kRevoked)
            stress.writer.upsert(test::row("3", "k", kRevoked));
          for (const RecordFacts& row : change.before) stress.writer.upsert(row);
        }
        stress.writer.remove("3");
        step % 2 == 0 ? load(change.after, false) : reread(change.after);
      },
      [&](std::size_t, Quiescence::Reader& reader) {
        if (accepts_k(stress, reader)) ++valid;
      });
  EXPECT_EQ(valid, 0U);
}

}  // namespace
}  // namespace latchkey
