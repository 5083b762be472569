// Quotas of callers, and the order of their turns.
#include "daemon/server/admission.h"

#include <gtest/gtest.h>

#include <map>
#include <string>
#include <vector>

#include "daemon/observe/guess_watch.h"
#include "daemon/server/turns.h"

namespace latchkey {
namespace {

constexpr std::int64_t kSecond = 1'000'000'000;

LimitOptions limits(std::size_t connections, std::size_t per_uid) {
  LimitOptions some;
  some.connections = connections;
  some.connections_per_uid = per_uid;
  some.reply_memory = 1000;
  some.idle_timeout = std::chrono::seconds(600);
  return some;
}

// Callers admitted by a rule for the uid, by one for a group, by no rule, and from the reserve.
CallerId by_uid(uid_t uid) { return {{Share::Kind::kRule, uid}, uid}; }
CallerId by_group(gid_t gid, uid_t uid) { return {{Share::Kind::kRule, std::nullopt, gid}, uid}; }
CallerId stranger(uid_t uid) { return {{Share::Kind::kNone}, uid}; }
CallerId root() { return {{Share::Kind::kReserve}, 0}; }

// The number of admitted connections of `tries`.
int entered(Admission& admission, const CallerId& id, int tries) {
  int count = 0;
  for (int i = 0; i < tries; ++i) count += admission.enter(id) == Admitted::kYes ? 1 : 0;
  return count;
}

TEST(AdmissionTest, LimitsEachUidAndAllTogether) {
  Admission admission(limits(5, 3));
  for (int i = 0; i < 3; ++i) EXPECT_EQ(admission.enter(by_uid(1)), Admitted::kYes);
  EXPECT_EQ(admission.enter(by_uid(1)), Admitted::kOverQuota);
  EXPECT_EQ(admission.enter(by_uid(2)), Admitted::kYes);
  EXPECT_EQ(admission.enter(by_uid(2)), Admitted::kYes);
  EXPECT_EQ(admission.enter(by_uid(2)), Admitted::kTooManyConnections);
  EXPECT_EQ(admission.connections(), 5U);
  admission.leave(by_uid(1));
  EXPECT_EQ(admission.enter(by_uid(3)), Admitted::kYes) << "what one leaves, another may take";
  const auto callers = admission.callers();
  ASSERT_EQ(callers.size(), 3U);
  EXPECT_EQ(callers[0].first, 1U);
  EXPECT_EQ(callers[0].second.connections, 2U);
  EXPECT_EQ(callers[0].second.refused, 1U);
}

TEST(AdmissionTest, FollowsLimitsThatChange) {
  Admission admission(limits(5, 5));
  for (int i = 0; i < 5; ++i) EXPECT_EQ(admission.enter(by_uid(1)), Admitted::kYes);
  admission.set_limits(limits(2, 2));
  EXPECT_EQ(admission.enter(by_uid(2)), Admitted::kTooManyConnections) << "who is there stays";
  for (int i = 0; i < 4; ++i) admission.leave(by_uid(1));
  EXPECT_EQ(admission.enter(by_uid(2)), Admitted::kYes);
}

TEST(AdmissionTest, LeavesEveryCallerHalfOfWhatOthersLeave) {
  Admission admission(limits(10, 10));
  EXPECT_TRUE(admission.hold(by_uid(1), 500));
  EXPECT_FALSE(admission.hold(by_uid(1), 1));
  EXPECT_TRUE(admission.hold(by_uid(2), 250));
  EXPECT_FALSE(admission.hold(by_uid(2), 1));
  EXPECT_TRUE(admission.hold(by_uid(3), 125));
  EXPECT_EQ(admission.waiting_bytes(), 875U);
  admission.free(by_uid(1), 500);
  EXPECT_TRUE(admission.hold(by_uid(2), 100));
  EXPECT_EQ(admission.waiting_bytes(), 475U);
}

TEST(AdmissionTest, WaitsTheLessForIdleOnesTheFewerConnectionsAreLeft) {
  Admission admission(limits(100, 100));
  std::int64_t last = admission.idle_timeout_ns();
  EXPECT_EQ(last, 600 * kSecond);
  for (int i = 0; i < 50; ++i) (void)admission.enter(by_uid(1));
  EXPECT_EQ(admission.idle_timeout_ns(), 600 * kSecond) << "half of them: no hurry";
  for (int i = 0; i < 50; ++i) {
    (void)admission.enter(by_uid(1));
    EXPECT_LE(admission.idle_timeout_ns(), last);
    last = admission.idle_timeout_ns();
  }
  EXPECT_EQ(last, 6 * kSecond);
  LimitOptions hasty = limits(100, 100);
  hasty.idle_timeout = std::chrono::milliseconds(500);
  admission.set_limits(hasty);
  EXPECT_EQ(admission.idle_timeout_ns(), kSecond / 2) << "never longer than configured";
}

TEST(AdmissionTest, ForgetsWhoIsGone) {
  Admission admission(limits(10, 10));
  for (uid_t uid = 0; uid < 3 * Admission::kCallersKept; ++uid) {
    EXPECT_EQ(admission.enter(by_uid(uid)), Admitted::kYes);
    (void)admission.count_unknown(by_uid(uid), 1);
    admission.leave(by_uid(uid));
  }
  EXPECT_LE(admission.callers().size(), Admission::kCallersKept + 1);
}

TEST(AdmissionTest, CountsAllUidsOfARuleTogether) {
  Admission admission(limits(1000, 64));
  int taken = 0;
  for (uid_t uid = 1; uid <= 60; ++uid) taken += entered(admission, by_group(7, uid), 64);
  EXPECT_EQ(taken, 64) << "however many uids there are";
  EXPECT_EQ(entered(admission, by_group(8, 1), 64), 32) << "the same uid by another rule";
  EXPECT_EQ(entered(admission, by_uid(1), 100), 64);
  int strangers = 0;
  for (uid_t uid = 1; uid <= 60; ++uid) strangers += entered(admission, stranger(uid), 64);
  EXPECT_EQ(strangers, 64);
  for (const auto& [uid, caller] : admission.callers()) {
    if (uid == 1) {
      EXPECT_EQ(caller.connections, 32U + 32 + 64 + 32) << "told by uid";
    }
  }
}

TEST(AdmissionTest, LeavesEveryUidOfARuleHalfOfWhatTheOthersLeave) {
  Admission admission(limits(1000, 64));
  EXPECT_EQ(entered(admission, by_group(7, 1), 100), 32);
  EXPECT_EQ(entered(admission, by_group(7, 2), 100), 16);
  EXPECT_EQ(entered(admission, by_group(7, 3), 100), 8);
  for (int i = 0; i < 32; ++i) admission.leave(by_group(7, 1));
  EXPECT_EQ(entered(admission, by_group(7, 3), 100), 16) << "24 of the 48 that are left";
  EXPECT_EQ(entered(admission, by_group(7, 4), 100), 12);
}

TEST(AdmissionTest, LetsRootInWhenEverythingIsTaken) {
  Admission admission(limits(100, 50));
  EXPECT_EQ(entered(admission, by_uid(1), 100), 50);
  EXPECT_EQ(entered(admission, by_uid(2), 100), 50);
  EXPECT_EQ(admission.enter(by_uid(3)), Admitted::kTooManyConnections);
  EXPECT_EQ(entered(admission, root(), 100), static_cast<int>(Admission::kReserved));
  EXPECT_EQ(admission.enter(root()), Admitted::kTooManyConnections)
      << "the reserve has an end, too";
  admission.leave(root());
  EXPECT_EQ(admission.enter(by_uid(3)), Admitted::kTooManyConnections) << "it is root's alone";
  EXPECT_EQ(admission.enter(root()), Admitted::kYes);
}

TEST(AdmissionTest, KeepsMemoryForRepliesByRuleThenByUidAndForRoot) {
  Admission admission(limits(10, 10));
  std::size_t group = 0;
  for (uid_t uid = 1; uid <= 60; ++uid) {
    while (admission.hold(by_group(7, uid), 1)) ++group;
  }
  EXPECT_LE(group, 500U) << "one rule, half of all";
  EXPECT_FALSE(admission.hold(by_group(7, 99), 2));
  std::size_t other = 0;
  while (admission.hold(by_uid(1), 1)) ++other;
  EXPECT_GE(other, 250U) << "another rule, half of the rest";
  for (uid_t uid = 100; uid < 120; ++uid) {
    while (admission.hold(by_uid(uid), 1)) {
    }
  }
  EXPECT_TRUE(admission.hold(root(), 125)) << "an eighth is root's";
  EXPECT_FALSE(admission.hold(root(), 1));
}

std::vector<std::string> all(Turns<std::string>& turns) {
  std::vector<std::string> order;
  while (const auto item = turns.next()) order.push_back(*item);
  return order;
}

TEST(TurnsTest, GivesEachCallerHisTurn) {
  Turns<std::string> turns;
  EXPECT_FALSE(turns.next());
  for (const char* item : {"a1", "a2", "a3"}) turns.add(by_uid(1), item);
  for (const char* item : {"b1", "b2"}) turns.add(by_uid(2), item);
  EXPECT_EQ(*turns.next(), "a1");
  turns.add(by_uid(3), "c1");
  EXPECT_EQ(all(turns), (std::vector<std::string>{"a2", "b1", "a3", "c1", "b2"}));
  EXPECT_TRUE(turns.empty());
}

TEST(TurnsTest, LetsWhoHasJustComeGoFirst) {
  Turns<std::string> turns;
  for (int i = 0; i < 100; ++i) turns.add(by_uid(1), "a");
  EXPECT_EQ(*turns.next(), "a");
  EXPECT_EQ(*turns.next(), "a");
  turns.add(by_uid(2), "b");
  EXPECT_EQ(*turns.next(), "b");
  EXPECT_EQ(*turns.next(), "a");
}

TEST(TurnsTest, LetsNobodyWaitForThoseWhoComeAgainAndAgain) {
  Turns<std::string> turns;
  for (int i = 0; i < 100; ++i) turns.add(by_uid(1), "a");
  EXPECT_EQ(*turns.next(), "a");
  int served = 0;
  for (uid_t uid = 2; uid < 102; ++uid) turns.add(by_uid(uid), "other");
  for (int i = 0; i < 100; ++i) {
    served += *turns.next() == "a" ? 1 : 0;
    turns.add(by_uid(static_cast<uid_t>(1000 + i)), "another");
  }
  EXPECT_EQ(served, 50) << "every other turn";
}

TEST(TurnsTest, CountByRuleWhoeverManyUidsItHas) {
  Turns<std::string> turns;
  for (uid_t uid = 1; uid <= 60; ++uid) {
    for (int i = 0; i < 10; ++i) turns.add(by_group(7, uid), "many");
  }
  for (int i = 0; i < 20; ++i) turns.add(by_uid(100), "one");
  for (int i = 0; i < 20; ++i) turns.add(stranger(static_cast<uid_t>(200 + i)), "strangers");
  std::map<std::string, int> served;
  for (int i = 0; i < 60; ++i) ++served[*turns.next()];
  EXPECT_NEAR(served["many"], 20, 1);
  EXPECT_NEAR(served["one"], 20, 1);
  EXPECT_NEAR(served["strangers"], 20, 1);
  for (int i = 0; i < 4; ++i) (void)turns.next();
  EXPECT_EQ(all(turns), std::vector<std::string>(576, "many")) << "the others have been served";
}

TEST(TurnsTest, GivesEachUidOfARuleItsTurn) {
  Turns<std::string> turns;
  for (int i = 0; i < 100; ++i) turns.add(by_group(7, 1), "a");
  for (int i = 0; i < 2; ++i) EXPECT_EQ(*turns.next(), "a");
  turns.add(by_group(7, 2), "b");
  EXPECT_EQ(*turns.next(), "b");
  for (int i = 0; i < 3; ++i) turns.add(by_group(7, 2), "b");
  std::map<std::string, int> served;
  for (int i = 0; i < 6; ++i) ++served[*turns.next()];
  EXPECT_EQ(served["b"], 3);
}

// ---- guessing callers

using Callers = std::vector<std::pair<uid_t, Admission::Caller>>;

Callers asked(std::uint64_t first, std::uint64_t second) {
  Callers callers(2);
  callers[0].first = 1001;
  callers[0].second.unknown = first;
  callers[1].first = 1002;
  callers[1].second.unknown = second;
  return callers;
}

TEST(GuessWatchTest, NamesWhoIsAboveTheRateOnceAMinute) {
  GuessWatch watch;
  std::vector<std::string> named;
  for (std::uint64_t second = 0; second <= 130; ++second) {
    // One caller asks for 150 a second, the other for 99.
    const auto found = watch.look(asked(150 * second, 99 * second), 100,
                                  static_cast<std::int64_t>(1000 + second) * kSecond);
    for (const auto& suspect : found) {
      named.push_back(std::to_string(second) + ": " + std::to_string(suspect.uid) + " " +
                      std::to_string(suspect.keys) + " in " +
                      std::to_string(suspect.for_ns / kSecond));
    }
  }
  EXPECT_EQ(named, (std::vector<std::string>{"10: 1001 1500 in 10", "70: 1001 1500 in 10",
                                             "130: 1001 1500 in 10"}));
}

TEST(GuessWatchTest, IsSilentWhenToldTo) {
  GuessWatch watch;
  for (std::uint64_t second = 0; second < 30; ++second) {
    EXPECT_TRUE(watch.look(asked(9000 * second, 0), 0, static_cast<std::int64_t>(second) * kSecond)
                    .empty());
  }
}

TEST(GuessWatchTest, BeginsAnewWithWhoWasForgotten) {
  GuessWatch watch;
  EXPECT_TRUE(watch.look(asked(1'000'000, 0), 100, kSecond).empty());
  EXPECT_TRUE(watch.look({}, 100, 6 * kSecond).empty());
  EXPECT_TRUE(watch.look(asked(900, 0), 100, 12 * kSecond).empty());
  EXPECT_TRUE(watch.look(asked(1'000, 0), 100, 22 * kSecond).empty());
  EXPECT_EQ(watch.look(asked(1'000 + 1'001, 0), 100, 32 * kSecond).size(), 1U);
}

}  // namespace
}  // namespace latchkey
