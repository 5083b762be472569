// The rights of callers.
#include "verify/rights.h"

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>

namespace latchkey {
namespace {

constexpr uid_t kOwn = 990, kAlice = 1001, kBob = 1002;
constexpr gid_t kWeb = 33, kOps = 44;
const std::vector<std::string> kSources = {"a", "b", "c"};

AllowOptions allow_uid(uid_t uid) {
  AllowOptions rule;
  rule.uid = uid;
  return rule;
}
AllowOptions allow_gid(gid_t gid) {
  AllowOptions rule;
  rule.gid = gid;
  return rule;
}
Peer peer(uid_t uid, gid_t gid = 9999, std::vector<gid_t> groups = {}) {
  return {uid, gid, 1, std::move(groups)};
}
std::optional<Rights> rights(const std::vector<AllowOptions>& rules, const Peer& who) {
  return CallerRules(rules, kSources, kOwn).rights_of(who);
}

TEST(CallerRules, AllowOnlyRootAndTheDaemonsOwnUserWithoutARule) {
  for (const uid_t uid : {uid_t{0}, kOwn}) {
    const auto all = rights({}, peer(uid));
    ASSERT_TRUE(all.has_value());
    EXPECT_EQ(all->sources, 0b111U);
    EXPECT_TRUE(all->all_sources && all->reasons && all->metadata);
  }
  EXPECT_FALSE(rights({}, peer(kAlice)).has_value());
  EXPECT_FALSE(rights({}, peer(kAlice, 0)).has_value()) << "root's group is not root";
  EXPECT_FALSE(rights({}, peer(static_cast<uid_t>(-1))).has_value());
  EXPECT_FALSE(rights({allow_uid(kAlice)}, peer(kBob)).has_value());
}

// A user namespace (e.g. of a container) that maps few ids shows the overflow id for all others.
TEST(CallerRules, TakeNoOverflowIdForSomebody) {
  constexpr std::uint32_t kNobody = 65'534;
  const std::vector<AllowOptions> list = {allow_uid(kNobody), allow_gid(kNobody),
                                          allow_uid(kAlice)};
  const auto may = [&](const Peer& who, uid_t own, OverflowIds overflow) {
    return CallerRules(list, kSources, own, overflow).rights_of(who).has_value();
  };
  const OverflowIds some{kNobody, kNobody};
  EXPECT_TRUE(may(peer(kNobody), kOwn, {})) << "where all ids are mapped it is somebody";
  EXPECT_FALSE(may(peer(kNobody), kOwn, some));
  EXPECT_FALSE(may(peer(kNobody), kNobody, some)) << "nor is it the daemon's own user";
  EXPECT_FALSE(may(peer(kBob, kNobody), kOwn, some));
  EXPECT_FALSE(may(peer(kBob, kBob, {kNobody}), kOwn, some));
  EXPECT_TRUE(may(peer(kAlice, kNobody, {kNobody}), kOwn, some)) << "her uid is mapped";
  EXPECT_TRUE(may(peer(0), kNobody, some));
  const CallerRules rules(list, kSources, kNobody, some);
  EXPECT_EQ(rules.id_of(peer(kNobody)).share.kind, Share::Kind::kNone);
}

TEST(OverflowIds, AreWhereAMapIsNotWhole) {
  const struct {
    const char* map;
    const char* overflow;
    std::optional<std::uint32_t> id;
  } cases[] = {
      {"         0          0 4294967295\n", "65534\n", std::nullopt},
      {"0 100000 65536\n", "65534\n", 65'534},
      {"0 100000 65536\n", "77\n", 77},
      {"0 100000 65536\n", "", 65'534},
      {"", "65534\n", 65'534},
      {"0 0 1000\n1000 5000 4294966295\n", "65534\n", std::nullopt},
      {"0 0 4294967294\n", "65534\n", 65'534},
      {"0 0 4294967295 rubbish\n", "65534\n", 65'534},
      {"rubbish", "rubbish", 65'534},
  };
  for (const auto& [map, overflow, id] : cases)
    EXPECT_EQ(OverflowIds::of(map, overflow), id) << map;
}

TEST(CallerRules, SayWhoseQuotasACallerDrawsOn) {
  AllowOptions both = allow_uid(kAlice);
  both.gid = kOps;
  const std::vector<AllowOptions> list = {both, allow_uid(kAlice), allow_gid(kWeb), allow_uid(0)};
  const CallerRules rules(list, kSources, kOwn);
  const auto share = [&rules](const Peer& who) { return rules.id_of(who).share; };
  EXPECT_EQ(rules.id_of(peer(kBob, kWeb)).uid, kBob);
  EXPECT_EQ(share(peer(kBob, kWeb)), share(peer(70'001, 1, {5, kWeb}))) << "one rule, one share";
  EXPECT_EQ(share(peer(kBob)), share(peer(70'001))) << "all whom no rule names";
  EXPECT_EQ(share(peer(0)), share(peer(kOwn))) << "the reserve, even if a rule names it";
  EXPECT_NE(share(peer(kAlice)), share(peer(kAlice, kOps))) << "other rules";
  for (const Share& one : {share(peer(kBob, kWeb)), share(peer(kBob))}) {
    EXPECT_TRUE(one.has_many_uids());
  }
  for (const Share& one : {share(peer(kAlice)), share(peer(kAlice, kOps)), share(peer(0))}) {
    EXPECT_FALSE(one.has_many_uids());
  }
  // The share is the same after a reload that has moved the rule.
  const std::vector<AllowOptions> moved = {allow_uid(kBob), allow_gid(kWeb)};
  EXPECT_EQ(CallerRules(moved, kSources, kOwn).id_of(peer(7, kWeb)).share, share(peer(8, kWeb)));
}

TEST(CallerRules, GiveWhatARuleSaysAndNoMore) {
  AllowOptions rule = allow_uid(kAlice);
  auto given = rights({rule}, peer(kAlice));
  ASSERT_TRUE(given.has_value());
  EXPECT_EQ(given->sources, 0b111U);
  EXPECT_TRUE(given->all_sources);
  EXPECT_FALSE(given->reasons);
  EXPECT_FALSE(given->metadata);

  rule.sources = {"c", "a"};
  rule.reasons = true;
  given = rights({rule}, peer(kAlice));
  EXPECT_EQ(given->sources, 0b101U);
  EXPECT_FALSE(given->all_sources);
  EXPECT_TRUE(given->reasons);
  EXPECT_FALSE(given->metadata);

  rule.reasons = false;
  rule.metadata = true;
  given = rights({rule}, peer(kAlice));
  EXPECT_FALSE(given->reasons);
  EXPECT_TRUE(given->metadata);

  EXPECT_EQ(given->operations, kAllOperations);
  rule.operations = {"verify", "sync"};
  EXPECT_EQ(rights({rule}, peer(kAlice))->operations,
            operation(LATCHKEY_VERIFY) | operation(LATCHKEY_SYNC));
  rule.operations = {"why", "status"};
  EXPECT_EQ(rights({rule}, peer(kAlice))->operations,
            operation(LATCHKEY_WHY) | operation(LATCHKEY_STATUS));

  rule.sources = {"no such source"};
  EXPECT_EQ(rights({rule}, peer(kAlice))->sources, 0U);
}

TEST(CallerRules, LetTheFirstRuleThatNamesThePeerCount) {
  AllowOptions first = allow_uid(kAlice), second = allow_uid(kAlice), group = allow_gid(kWeb);
  first.sources = {"a"};
  second.sources = {"b"};
  group.sources = {"c"};
  EXPECT_EQ(rights({first, second}, peer(kAlice))->sources, 0b001U);
  EXPECT_EQ(rights({second, first}, peer(kAlice))->sources, 0b010U);
  EXPECT_EQ(rights({group, first}, peer(kAlice, kWeb))->sources, 0b100U);
  EXPECT_EQ(rights({first, group}, peer(kAlice, kWeb))->sources, 0b001U);
  EXPECT_EQ(rights({group, first}, peer(kAlice))->sources, 0b001U);
}

TEST(CallerRules, LetARuleThatNamesThemCurbRootAndTheDaemonsOwnUser) {
  for (const uid_t uid : {uid_t{0}, kOwn}) {
    AllowOptions rule = allow_uid(uid);
    rule.sources = {"b"};
    const auto given = rights({rule}, peer(uid));
    EXPECT_EQ(given->sources, 0b010U);
    EXPECT_FALSE(given->reasons);
    EXPECT_TRUE(rights({allow_uid(kAlice)}, peer(uid))->reasons) << "a rule for somebody else";
  }
}

TEST(CallerRules, KnowGroupsWhetherPrimaryOrNot) {
  const std::vector<AllowOptions> rules = {allow_gid(kWeb)};
  EXPECT_TRUE(rights(rules, peer(kAlice, kWeb)).has_value());
  EXPECT_TRUE(rights(rules, peer(kAlice, kOps, {1, kWeb, 2})).has_value());
  EXPECT_FALSE(rights(rules, peer(kAlice, kOps, {1, 2})).has_value());
  EXPECT_FALSE(rights(rules, peer(kWeb, kOps)).has_value()) << "a uid of that number";
}

TEST(CallerRules, NeedBothWhereARuleNamesUserAndGroup) {
  AllowOptions rule = allow_uid(kAlice);
  rule.gid = kWeb;
  EXPECT_TRUE(rights({rule}, peer(kAlice, kWeb)).has_value());
  EXPECT_TRUE(rights({rule}, peer(kAlice, kOps, {kWeb})).has_value());
  EXPECT_FALSE(rights({rule}, peer(kAlice, kOps)).has_value());
  EXPECT_FALSE(rights({rule}, peer(kBob, kWeb)).has_value());
}

TEST(CallerRules, HaveABitForEachOf32Sources) {
  std::vector<std::string> names;
  for (int i = 0; i < 32; ++i) names.push_back("s" + std::to_string(i));
  AllowOptions rule = allow_uid(kAlice);
  rule.sources = {"s31"};
  const CallerRules rules(std::vector<AllowOptions>{rule}, names, kOwn);
  EXPECT_EQ(rules.rights_of(peer(0))->sources, 0xFFFFFFFFu);
  EXPECT_EQ(rules.rights_of(peer(kAlice))->sources, 0x80000000u);
}

TEST(PeerOf, IsWhoHoldsTheOtherEnd) {
  std::array<int, 2> ends{};
  ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, ends.data()), 0);
  const auto found = peer_of(ends[0]);
  ASSERT_TRUE(found.has_value());
  EXPECT_EQ(found->uid, geteuid());
  EXPECT_EQ(found->gid, getegid());
  EXPECT_EQ(found->pid, getpid());
  std::vector<gid_t> groups(static_cast<std::size_t>(getgroups(0, nullptr)));
  ASSERT_GE(getgroups(static_cast<int>(groups.size()), groups.data()), 0);
  EXPECT_EQ(found->groups, groups);
  close(ends[0]);
  close(ends[1]);
}

TEST(PeerOf, IsNobodyWhereTheKernelWillNotSay) {
  EXPECT_FALSE(peer_of(-1).has_value());
  std::array<int, 2> ends{};
  ASSERT_EQ(pipe(ends.data()), 0);
  EXPECT_FALSE(peer_of(ends[0]).has_value());
  close(ends[0]);
  close(ends[1]);
}

}  // namespace
}  // namespace latchkey
