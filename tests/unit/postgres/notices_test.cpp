// The queue of notifications between the socket and the policy.
#include "loader/postgres/notices.h"

#include <gtest/gtest.h>

#include <map>
#include <nlohmann/json.hpp>

#include "tests/unit/support/helpers.h"

namespace latchkey {
namespace {

using Pushed = NoticeQueue::Pushed;

std::string change(const std::string& table, const std::string& rest) {
  return "{\"t\" : \"" + table + "\", \"ids\" : [\"" + rest + "\"]}";
}

std::string popped(NoticeQueue& queue) {
  const auto notice = queue.pop();
  if (!notice) return "nothing";
  if (const auto* own = std::get_if<NoticeQueue::Own>(&*notice)) return own->payload;
  if (const auto* many = std::get_if<NoticeQueue::TooMany>(&*notice)) {
    return "too many of " + std::to_string(many->table);
  }
  const auto& told = std::get<NoticeQueue::Change>(*notice);
  return std::to_string(told.table) + ": " + told.payload;
}

TEST(NoticeTag, IsFoundWithoutParsing) {
  EXPECT_EQ(notice_tag(R"({"t" : "public.keys", "ids" : ["1"]})"), "public.keys");
  EXPECT_EQ(notice_tag(R"({"t":"public.keys"  and then anything)"), "public.keys");
  EXPECT_EQ(notice_tag(" {\n\t\"t\" :\"\""), "");
  EXPECT_EQ(notice_tag(R"({"t":"a\"b\\"})"), R"(a\"b\\)");
  for (const char* bad : {"", "{", "x", "[\"t\"]", "{\"t\"", "{\"t\":", "{\"t\":7}", "{\"t\":null}",
                          R"({"ids":[],"t":"a"})", R"({"t":"a)", R"({"t":"a\")", R"({"t":"a\)"}) {
    EXPECT_EQ(notice_tag(bad), std::nullopt) << bad;
  }
  EXPECT_EQ(notice_tag(std::string(8'000, '{')), std::nullopt);
  EXPECT_EQ(notice_tag(std::string(8'000, ' ')), std::nullopt);
}

TEST(NoticeQueue, KeepsWhatIsAboutItsTablesInOrder) {
  NoticeQueue queue({"public.a", "b"});
  EXPECT_TRUE(queue.empty());
  EXPECT_EQ(queue.push_change(change("b", "1")), Pushed::kTaken);
  queue.push_own("nonce");
  EXPECT_EQ(queue.push_change(change("public.a", "2")), Pushed::kTaken);
  EXPECT_EQ(queue.push_change(change("public.c", "3")), Pushed::kOtherTable);
  EXPECT_EQ(queue.push_change(change("public.a ", "3")), Pushed::kOtherTable);
  EXPECT_EQ(queue.push_change("xyz"), Pushed::kMalformed);
  EXPECT_FALSE(queue.empty());
  EXPECT_EQ(popped(queue), "1: " + change("b", "1"));
  EXPECT_EQ(popped(queue), "nonce");
  EXPECT_EQ(popped(queue), "0: " + change("public.a", "2"));
  EXPECT_EQ(popped(queue), "nothing");
  EXPECT_EQ(queue.bytes(), 0U);
}

TEST(NoticeQueue, KnowsATableHoweverItsNameIsSpelled) {
  const std::string names[] = {"public.it\"s", "back\\slash", "caf\xC3\xA9", "tab\tand\x01"};
  for (const std::string& name : names) {
    NoticeQueue queue({name});
    for (const bool ascii : {false, true}) {
      const std::string payload = R"({"t": )" + nlohmann::json(name).dump(-1, ' ', ascii) + "}";
      EXPECT_EQ(queue.push_change(payload), Pushed::kTaken) << payload;
    }
  }
  NoticeQueue queue({"ab"});
  EXPECT_EQ(queue.push_change(R"({"t":"\u0061b"})"), Pushed::kTaken);
  EXPECT_EQ(queue.push_change(R"({"t":"\u0061c"})"), Pushed::kOtherTable);
  EXPECT_EQ(queue.push_change(R"({"t":"\ud800"})"), Pushed::kOtherTable);
}

TEST(NoticeQueue, CollapsesTheTableThatFloodsAndNoOther) {
  constexpr std::size_t kMax = 100'000;
  NoticeQueue queue({"calm", "flooded"}, kMax);
  queue.push_change(change("calm", "1"));
  for (int i = 0; i < 10'000; ++i) {
    queue.push_change(change("flooded", std::string(7'000, 'x')));
    ASSERT_LE(queue.bytes(), kMax);
  }
  queue.push_own("nonce");
  queue.push_change(change("calm", "2"));
  EXPECT_EQ(popped(queue), "too many of 1") << "before whatever comes behind it";
  EXPECT_EQ(popped(queue), "0: " + change("calm", "1"));
  EXPECT_EQ(popped(queue), "nonce");
  EXPECT_EQ(popped(queue), "0: " + change("calm", "2"));
  EXPECT_TRUE(queue.empty());
  queue.push_change(change("flooded", "3"));
  EXPECT_EQ(popped(queue), "1: " + change("flooded", "3"));
}

// An unreadable notification may name any id of its table; if the table's name is unreadable, any
// table with a non-ASCII name.
TEST(NoticeQueue, TakesWhatItCannotReadForTooMany) {
  NoticeQueue queue({"a.b", "a.\xC3\xA9", "c.d"});
  EXPECT_EQ(queue.push_unreadable("{\"t\" : \"a.b\", \"ids\" : [\"\xE9\"]}"), Pushed::kTaken);
  auto notice = queue.pop();
  ASSERT_TRUE(notice);
  EXPECT_EQ(std::get<NoticeQueue::TooMany>(*notice).table, 0U);
  EXPECT_EQ(queue.push_unreadable("{\"t\" : \"a.\xE9\", \"ids\" : [\"1\"]}"), Pushed::kTaken);
  notice = queue.pop();
  ASSERT_TRUE(notice);
  EXPECT_EQ(std::get<NoticeQueue::TooMany>(*notice).table, 1U);
  EXPECT_EQ(queue.push_unreadable("{\"t\" : \"x.y\", \"ids\" : [\"\xE9\"]}"), Pushed::kOtherTable);
  EXPECT_EQ(queue.push_unreadable("\x81"), Pushed::kMalformed);
  EXPECT_TRUE(queue.empty());
}

TEST(NoticeQueue, DropsWhatIsNotOursWithoutKeepingIt) {
  NoticeQueue queue({"ours"}, 1'000);
  for (int i = 0; i < 10'000; ++i) {
    queue.push_change(change("theirs", std::string(7'000, 'x')));
    queue.push_change(std::string(7'900, 'x') + std::to_string(i));
  }
  EXPECT_TRUE(queue.empty());
}

TEST(NoticeQueue, ForgetsEverythingWithTheConnection) {
  NoticeQueue queue({"a"}, 1'000);
  queue.push_change(change("a", std::string(2'000, 'x')));
  queue.push_own("nonce");
  queue.clear();
  EXPECT_TRUE(queue.empty());
  EXPECT_EQ(popped(queue), "nothing");
}

// Random floods: when a nonce is popped, every notification pushed before it has been reported.
TEST(NoticeQueue, TellsOfEverythingBeforeTheNonceBehindIt) {
  test::Random random(77);
  for (int round = 0; round < 200; ++round) {
    NoticeQueue queue({"t0", "t1", "t2"}, 2'000);
    std::map<std::string, std::size_t> owed;                           // payload -> its table
    std::map<std::string, std::map<std::string, std::size_t>> before;  // nonce -> earlier ones
    const auto pop = [&] {
      const auto notice = queue.pop();
      if (!notice) return;
      if (const auto* told = std::get_if<NoticeQueue::Change>(&*notice)) {
        for (auto& [nonce, owes] : before) owes.erase(told->payload);
        owed.erase(told->payload);
      } else if (const auto* many = std::get_if<NoticeQueue::TooMany>(&*notice)) {
        const auto about = [&](const auto& one) { return one.second == many->table; };
        for (auto& [nonce, owes] : before) std::erase_if(owes, about);
        std::erase_if(owed, about);
      } else {
        const std::string& nonce = std::get<NoticeQueue::Own>(*notice).payload;
        EXPECT_TRUE(before.at(nonce).empty()) << before.at(nonce).begin()->first;
      }
    };
    for (int i = 0; i < 300; ++i) {
      const std::size_t table = random.below(3);
      const std::string payload = change("t" + std::to_string(table),
                                         std::to_string(i) + std::string(random.below(300), 'x'));
      switch (random.below(8)) {
        case 0:
          before["nonce " + std::to_string(i)] = owed;
          queue.push_own("nonce " + std::to_string(i));
          break;
        case 1:
        case 2:
        case 3: pop(); break;
        default:
          ASSERT_EQ(queue.push_change(payload), Pushed::kTaken);
          owed.emplace(payload, table);
      }
      ASSERT_LE(queue.bytes(), 2'000U);
    }
    while (!queue.empty()) pop();
    EXPECT_TRUE(owed.empty());
  }
}

}  // namespace
}  // namespace latchkey
