// The last use of keys: ticks, rings, pending uses, the time of writing; and a stress test in
// which the writer replaces the records that workers mark.
#include "loader/last_used.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <limits>
#include <map>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "daemon/unix/batch.h"
#include "daemon/unix/conversation.h"
#include "keymap/key_set.h"
#include "keymap/use_log.h"
#include "tests/reference/client_codec.h"
#include "tests/unit/support/helpers.h"
#include "tests/unit/support/turn.h"
#include "tests/unit/support/verifier_fixture.h"

namespace latchkey {
namespace {

using namespace std::chrono_literals;
using test::row;
using testing::ElementsAre;
using testing::IsEmpty;

constexpr std::int64_t kSecond = 1'000'000;  // us

// ---- ticks

TEST(UseClock, CountsInStepsOfItsResolution) {
  const UseClock clock(5s);
  const std::int64_t start_us = test::kRealUs;  // a multiple of 5 s
  EXPECT_EQ(clock.at(start_us).real_us, start_us);
  EXPECT_NE(clock.at(start_us).tick, 0U) << "0 is what a new record shows";
  EXPECT_EQ(clock.at(start_us).tick, clock.at(start_us + 5 * kSecond - 1).tick);
  EXPECT_EQ(clock.at(start_us).tick + 1, clock.at(start_us + 5 * kSecond).tick);
  EXPECT_EQ(clock.at(start_us).tick - 1, clock.at(start_us - 1).tick) << "the clock was set back";
}

TEST(UseClock, TellsTicksApartWhereTheirNumbersBeginAnew) {
  const UseClock clock(1s);
  const std::int64_t last_us = ((std::int64_t{1} << 32) - 2) * kSecond;
  EXPECT_EQ(clock.at(last_us).tick, std::numeric_limits<std::uint32_t>::max());
  EXPECT_NE(clock.at(last_us + kSecond).tick, clock.at(last_us).tick);
  EXPECT_NE(clock.at(last_us + 2 * kSecond).tick, clock.at(last_us + kSecond).tick);
}

TEST(UseClock, StandsStillWhereNobodyWantsToKnow) {
  EXPECT_EQ(UseClock().at(test::kRealUs).tick, 0U);
}

// ---- rings

class UseLogTest : public testing::Test {
 protected:
  // The times of the waiting uses, in order.
  std::vector<std::int64_t> taken() {
    std::vector<std::int64_t> times;
    log_.take([&](const Use& use) { times.push_back(use.real_us); });
    return times;
  }
  static UseMoment at(std::uint32_t tick) { return {tick * kSecond, tick}; }

  test::Records records_;
  UseLog log_{2};
};

TEST_F(UseLogTest, NotesAKeyOnceATick) {
  const Record* record = records_.make(row("1", "k"));
  log_.note(0, *record, at(7));
  log_.note(0, *record, at(7));
  log_.note(1, *record, at(7));
  EXPECT_THAT(taken(), ElementsAre(7 * kSecond));
  log_.note(1, *record, at(8));
  log_.note(0, *record, at(6));  // the clock was set back
  std::vector<std::int64_t> times = taken();
  std::ranges::sort(times);
  EXPECT_THAT(times, ElementsAre(6 * kSecond, 8 * kSecond));
  EXPECT_THAT(taken(), IsEmpty());
  EXPECT_EQ(log_.deferred(), 0U);
}

TEST_F(UseLogTest, CarriesTheWholeDigest) {
  const Record* record = records_.make(row("1", "k"));
  log_.note(1, *record, at(1));
  std::size_t uses = 0;
  log_.take([&](const Use& use) {
    EXPECT_EQ(use.digest, sha256("k"));
    ++uses;
  });
  EXPECT_EQ(uses, 1U);
}

TEST_F(UseLogTest, TriesAgainAtTheNextUseWhereARingIsFull) {
  std::size_t wakes = 0;
  log_.on_half_full([&] { ++wakes; });
  EXPECT_FALSE(log_.crowded());
  for (std::size_t i = 0; i < UseLog::kRoom; ++i) {
    EXPECT_EQ(log_.crowded(), i >= UseLog::kRoom / 2) << i;
    log_.note(0, *records_.make(row("1", "k")), at(1));
  }
  EXPECT_EQ(wakes, 2U);
  const Record* late = records_.make(row("2", "late"));
  log_.note(0, *late, at(1));
  log_.note(0, *late, at(1));
  EXPECT_EQ(log_.deferred(), 2U);
  EXPECT_EQ(late->used_tick(), 0U) << "not noted, so not marked";
  log_.note(1, *late, at(1));  // another worker has its own ring
  EXPECT_EQ(taken().size(), UseLog::kRoom + 1);
  log_.note(0, *late, at(2));
  EXPECT_THAT(taken(), ElementsAre(2 * kSecond));
  EXPECT_EQ(log_.deferred(), 2U);
}

// ---- uses

class UsesOfAnswers : public test::VerifierTest {
 protected:
  UsesOfAnswers() {
    context_.verifier = &verifier_;
    context_.reader = &reader_;
    context_.stats = &stats_;
    context_.clock = [this] { return now_; };
    context_.worker = 1;
    context_.use_clock = UseClock(5s);
    in_a_.upsert(row("1", "good"));
    in_a_.upsert(row("2", "revoked", RowState::kRevoked));
    RecordFacts expired = row("3", "expired");
    expired.expires_us = test::kRealUs;
    in_a_.upsert(expired);
    in_b_.upsert(row("in b", "only b"));
  }

  // The ids of the rows of `a` whose uses were noted during these requests.
  std::vector<std::string> used(const std::vector<std::string_view>& keys,
                                const VerifyTerms& terms = {},
                                const Rights& rights = {.sources = 0b11, .all_sources = true}) {
    OutBuffer request, reply;
    encode_verify(request, 1, terms, keys);
    FrameBuffer in(LATCHKEY_REQUEST_BYTES_MAX);
    std::ranges::copy(request.bytes(), in.writable().begin());
    in.commit(request.size());
    Conversation conversation(rights);
    EXPECT_EQ(test::turn(conversation, in, reply, context_, batch_), Conversation::Next::kRead);
    std::vector<std::string> ids;
    log_.take([&](const Use& use) {
      std::array<const Record*, 1> found;
      in_a_.rows_of({&use.digest, 1}, found);
      ids.emplace_back(found[0] != nullptr ? found[0]->key_id() : "nobody");
      EXPECT_EQ(use.real_us, now_.real_us);
    });
    return ids;
  }

  UseLog log_{2};
  Verifier verifier_{{Digester()}, {{&a_, {0}, {}, &log_}, {&b_, {0}}}, test::kLimits};
  Quiescence::Reader reader_{quiescence_};
  WorkerStats stats_;
  WorkerContext context_;
  Batch batch_;
};

TEST_F(UsesOfAnswers, AreThoseOfKeysThatWereLetIn) {
  EXPECT_THAT(used({"good", "revoked", "expired", "unknown", "only b", "good", ""}),
              ElementsAre("1"));
  EXPECT_THAT(used({"good"}), IsEmpty()) << "once a tick";
  now_.real_us += 5 * kSecond;
  EXPECT_THAT(used({"revoked"}), IsEmpty());
  EXPECT_THAT(used({"good"}), ElementsAre("1"));
}

TEST_F(UsesOfAnswers, AreNotThoseOfKeysWithoutTheScope) {
  VerifyTerms terms;
  terms.all_scopes = {"admin"};
  EXPECT_THAT(used({"good"}, terms), IsEmpty());
}

TEST_F(UsesOfAnswers, AreNotThoseOfCallersWhoMayNotAsk) {
  EXPECT_THAT(used({"good"}, {}, {.sources = 0b10}), IsEmpty());
}

TEST_F(UsesOfAnswers, AreNobodysOnceSeveralRowsHoldTheKey) {
  const ReadSection section(reader_);
  log_.note(0, *a_.map.find(sha256("good")), {now_.real_us, 1});
  in_a_.upsert(row("0", "good"));
  log_.take([&](const Use& use) {
    std::array<const Record*, 1> found;
    in_a_.rows_of({&use.digest, 1}, found);
    EXPECT_EQ(found[0], nullptr);
  });
}

// ---- pending uses

std::vector<std::pair<std::string, std::int64_t>> listed(const UsedRows& rows) {
  std::vector<std::pair<std::string, std::int64_t>> list;
  for (const UsedRow& each : rows) list.emplace_back(each.id, each.real_us);
  return list;
}
auto is(const char* id, std::int64_t us) { return testing::Pair(id, us); }

TEST(PendingUses, KeepTheLatestUseOfEachRowTheOldestFirst) {
  PendingUses pending(10);
  pending.add("a", 1);
  pending.add("b", 2);
  pending.add("c", 3);
  pending.add("a", 4);
  pending.add("b", 1);  // from another worker, reported late
  EXPECT_EQ(pending.size(), 3U);
  EXPECT_THAT(listed(pending.take(2)), ElementsAre(is("b", 2), is("c", 3)));
  EXPECT_THAT(listed(pending.take(2)), ElementsAre(is("a", 4)));
  EXPECT_THAT(pending.take(2), IsEmpty());
  EXPECT_EQ(pending.dropped(), 0U);
}

TEST(PendingUses, ForgetTheOldestPastTheLimit) {
  PendingUses pending(2);
  pending.add("a", 1);
  pending.add("b", 2);
  pending.add("a", 3);
  pending.add("c", 4);
  EXPECT_EQ(pending.dropped(), 1U);
  EXPECT_THAT(listed(pending.take(9)), ElementsAre(is("a", 3), is("c", 4)));
}

TEST(PendingUses, TakeBackWhatCouldNotBeWritten) {
  PendingUses pending(4);
  for (const char* id : {"a", "b", "c"}) pending.add(id, 1);
  UsedRows taken = pending.take(3);
  pending.add("b", 5);
  pending.add("d", 6);
  pending.give_back(std::move(taken));
  EXPECT_THAT(listed(pending.take(9)), ElementsAre(is("a", 1), is("c", 1), is("b", 5), is("d", 6)));
}

TEST(PendingUses, ForgetTheOldestOfWhatTheyTakeBackWithoutRoom) {
  PendingUses pending(3);
  for (const char* id : {"a", "b", "c"}) pending.add(id, 1);
  UsedRows taken = pending.take(3);
  pending.add("d", 2);
  pending.give_back(std::move(taken));
  EXPECT_EQ(pending.dropped(), 1U);
  EXPECT_THAT(listed(pending.take(9)), ElementsAre(is("b", 1), is("c", 1), is("d", 2)));
}

// ---- the time of writing

constexpr std::int64_t kNs = 1'000'000'000;

TEST(LastUsedRounds, ComeEveryFlush) {
  LastUsedRounds rounds(5 * kNs, 1);
  EXPECT_LE(rounds.next_ns(), 0);
  rounds.begun(100 * kNs);
  EXPECT_EQ(rounds.next_ns(), 105 * kNs);
  rounds.hurry();
  EXPECT_LT(rounds.next_ns(), 0);
}

TEST(LastUsedRounds, ComeLaterAndLaterWhileTheyFail) {
  LastUsedRounds rounds(kNs, 1);
  std::int64_t now_ns = 0, longest_ns = 1 * kNs;
  for (int failures = 0; failures < 20; ++failures) {
    rounds.begun(now_ns);
    rounds.failed(now_ns, 0);
    EXPECT_GE(rounds.next_ns() - now_ns, std::max(kNs, longest_ns / 2));
    EXPECT_LE(rounds.next_ns() - now_ns, std::max(kNs, longest_ns));
    longest_ns = std::min(longest_ns * 2, LastUsedRounds::kBackoffMaxNs);
    now_ns = rounds.next_ns();
  }
  EXPECT_EQ(rounds.batch(), LastUsedRounds::kBatchMax) << "nothing was refused";
  rounds.written();
  rounds.begun(now_ns);
  rounds.failed(now_ns, 0);
  EXPECT_LE(rounds.next_ns() - now_ns, kNs) << "from the beginning again";
}

TEST(LastUsedRounds, HalveBatchesThatAreRefused) {
  LastUsedRounds rounds(kNs, 1);
  rounds.failed(0, 30);  // all that were pending
  EXPECT_EQ(rounds.batch(), 15U);
  rounds.failed(0, 15);
  EXPECT_EQ(rounds.batch(), 7U);
  rounds.failed(0, 1);
  EXPECT_EQ(rounds.batch(), 1U);
  rounds.written();
  EXPECT_EQ(rounds.batch(), 2U);
  for (int i = 0; i < 20; ++i) rounds.written();
  EXPECT_EQ(rounds.batch(), LastUsedRounds::kBatchMax);
}

// ---- all at once

// Workers look keys up and note them. The writer replaces, removes and restores the same rows,
// frees outdated records, and takes the uses. Every noted use arrives: each key that a worker
// used, with a time at which it used the key, for each tick in which it did.
TEST(LastUsedStress, EveryNotedUseArrives) {
  constexpr std::size_t kWorkers = 2;
  constexpr std::size_t kKeys = 500;
  constexpr std::uint32_t kTicks = 40;
  Quiescence quiescence;
  KeySet keys("s", quiescence);
  KeySetWriter writer(keys, quiescence);
  UseLog log(kWorkers);
  std::atomic<std::size_t> wakes{0};
  log.on_half_full([&] { ++wakes; });
  std::vector<Digest> digests;
  std::map<std::string, std::size_t> number_of;
  for (std::size_t i = 0; i < kKeys; ++i) {
    digests.push_back(sha256(std::to_string(i)));
    number_of[std::to_string(i)] = i;
    writer.upsert(row(std::to_string(i), std::to_string(i)));
  }
  std::atomic<std::uint32_t> tick{1};
  std::atomic<std::size_t> working{kWorkers};
  using Uses = std::set<std::pair<std::uint32_t, std::size_t>>;  // tick, key
  std::vector<Uses> used(kWorkers);
  std::vector<std::thread> workers;
  for (std::size_t number = 0; number < kWorkers; ++number) {
    workers.emplace_back([&, number] {
      Quiescence::Reader reader(quiescence);
      test::Random random(number);
      for (std::uint32_t now = 1; (now = tick.load()) <= kTicks;) {
        const ReadSection section(reader);
        const std::size_t key = random.below(kKeys);
        const Record* record = keys.map.find(digests[key]);
        if (record == nullptr) continue;
        log.note(number, *record, {now, now});
        used[number].emplace(now, key);
      }
      --working;
    });
  }
  Uses arrived;
  std::size_t taken = 0;
  const auto take = [&] {
    log.take([&](const Use& use) {
      ++taken;
      const auto key = std::ranges::find(digests, use.digest) - digests.begin();
      arrived.emplace(static_cast<std::uint32_t>(use.real_us), static_cast<std::size_t>(key));
      std::array<const Record*, 1> found;
      writer.rows_of({&use.digest, 1}, found);
      // The row may be absent at the moment, but never belongs to another key.
      if (found[0] != nullptr) {
        EXPECT_EQ(number_of.at(std::string(found[0]->key_id())), static_cast<std::size_t>(key));
      }
    });
  };
  test::Random random(kWorkers);
  for (std::size_t step = 1; working.load() > 0; ++step) {
    const std::string id = std::to_string(random.below(kKeys));
    RecordFacts facts = row(id, id);
    const std::string subject = std::to_string(step);
    facts.subject = subject;
    if (random.below(4) == 0) writer.remove(id);
    writer.upsert(facts);
    if (step % 8 == 0) take();
    if (step % 16 == 0) writer.collect();
    if (step % 500 == 0) ++tick;
  }
  for (std::thread& worker : workers) worker.join();
  take();
  Uses all;
  for (const Uses& of_worker : used) all.insert(of_worker.begin(), of_worker.end());
  EXPECT_EQ(arrived, all);
  EXPECT_EQ(log.deferred(), 0U);
  EXPECT_GE(taken, arrived.size());
}

}  // namespace
}  // namespace latchkey
