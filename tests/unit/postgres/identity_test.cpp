#include "loader/postgres/identity.h"

#include <gtest/gtest.h>

namespace latchkey {
namespace {

ServerIdentity server(std::uint32_t timeline, Lsn inserted, Lsn flushed, std::string started = "a",
                      Lsn checkpoint = 1) {
  return {.system = "7",
          .timeline = timeline,
          .position = {.inserted = inserted, .flushed = flushed},
          .started = std::move(started),
          .checkpoint = checkpoint};
}

ServerHistory of(const ServerIdentity& first) {
  ServerHistory history;
  EXPECT_EQ(history.met(first), IdentityChange::kNone);
  return history;
}

TEST(Lsn, IsTwoHexadecimalNumbers) {
  EXPECT_EQ(parse_lsn("16/B374D848"), Lsn{0x16B374D848});
  EXPECT_EQ(show_lsn(0x16B374D848), "16/B374D848");
  EXPECT_EQ(show_lsn(*parse_lsn("0/1")), "0/1");
  for (const char* wrong :
       {"", "/", "1", "1/", "/1", "1/2/3", "x/1", "1/-1", "1/123456789", "1 /1"}) {
    EXPECT_EQ(parse_lsn(wrong), std::nullopt) << wrong;
  }
}

TEST(ServerHistory, GoesOnWhereItWas) {
  ServerHistory history = of(server(1, 100, 100));
  EXPECT_EQ(history.met(server(1, 100, 100)), IdentityChange::kNone);
  EXPECT_EQ(history.met(server(1, 101, 90)), IdentityChange::kNone);
}

TEST(ServerHistory, APositionThatWasPassedIsAnAlarm) {
  ServerHistory history = of(server(1, 100, 100));
  history.reached({.inserted = 120, .flushed = 120});
  EXPECT_EQ(history.met(server(1, 119, 119)), IdentityChange::kOlderPosition);
  EXPECT_EQ(history.met(server(1, 119, 119)), IdentityChange::kNone)
      << "it is the one followed now";
}

TEST(ServerHistory, WhatWasNotFlushedMayBeLostInACrash) {
  ServerHistory history = of(server(1, 100, 100));
  history.reached({.inserted = 200, .flushed = 150});  // possibly in the middle of a record
  history.reached({.inserted = 300, .flushed = 199});
  EXPECT_EQ(history.furthest(1), 100U);
  EXPECT_EQ(history.met(server(1, 100, 100, "b", 100)), IdentityChange::kNone);
}

TEST(ServerHistory, UnderLoadTheEndOfARecordCountsOnceItIsFlushed) {
  ServerHistory history = of(server(1, 100, 90));
  history.reached({.inserted = 200, .flushed = 150});
  EXPECT_EQ(history.furthest(1), 100U);
  history.reached({.inserted = 300, .flushed = 250});
  EXPECT_EQ(history.furthest(1), 200U);
  history.reached({.inserted = 400, .flushed = 399});
  EXPECT_EQ(history.furthest(1), 300U);
  EXPECT_EQ(history.met(server(1, 299, 299)), IdentityChange::kOlderPosition);
}

TEST(ServerHistory, ARestoredServerThatHasWrittenMuchIsToldByItsFirstCheckpoint) {
  ServerHistory history = of(server(1, 100, 100, "a", 50));
  EXPECT_EQ(history.met(server(1, 500, 500, "a", 60)), IdentityChange::kNone) << "the same life";
  EXPECT_EQ(history.met(server(1, 600, 600, "b", 500)), IdentityChange::kNone) << "stopped there";
  EXPECT_EQ(history.met(server(1, 900, 900, "c", 599)), IdentityChange::kOlderPosition);
}

TEST(ServerHistory, RemembersEachTimeline) {
  ServerHistory history = of(server(1, 100, 100));
  EXPECT_EQ(history.met(server(2, 80, 80, "b")), IdentityChange::kPromotion);
  history.reached({.inserted = 200, .flushed = 200});
  EXPECT_EQ(history.met(server(1, 150, 150)), IdentityChange::kOlderTimeline);
  EXPECT_EQ(history.furthest(2), 0U) << "that grew out of what is undone";
  EXPECT_EQ(history.met(server(2, 90, 90, "b")), IdentityChange::kPromotion);
  EXPECT_EQ(history.met(server(3, 95, 95, "b")), IdentityChange::kPromotion);
  EXPECT_EQ(history.furthest(1), 150U);
}

TEST(ServerHistory, AnotherSystemBeginsAnew) {
  ServerHistory history = of(server(1, 100, 100));
  ServerIdentity other = server(1, 10, 10);
  other.system = "8";
  EXPECT_EQ(history.met(other), IdentityChange::kOtherSystem);
  EXPECT_EQ(history.furthest(1), 10U);
}

TEST(ServerHistory, WhatMayNotBeKnownSaysNothing) {
  ServerHistory history = of(server(2, 100, 100));
  EXPECT_EQ(history.met({}), IdentityChange::kNone);
  history.reached({.inserted = 0, .flushed = 0});
  EXPECT_EQ(history.met(server(2, 99, 99)), IdentityChange::kOlderPosition)
      << "nor is it forgotten";
  ServerIdentity bare = server(1, 0, 0, "", 0);
  bare.system.clear();
  EXPECT_EQ(history.met(bare), IdentityChange::kOlderTimeline);
}

TEST(ServerHistory, IsBounded) {
  ServerHistory history = of(server(1, 100, 100));
  for (std::uint32_t timeline = 2; timeline < 1000; ++timeline) {
    EXPECT_EQ(history.met(server(timeline, 100, 100)), IdentityChange::kPromotion);
  }
  EXPECT_EQ(history.furthest(1), 0U);
  EXPECT_EQ(history.furthest(999), 100U);
}

TEST(SideRights, NamesWhatIsMissing) {
  SideRights rights{
      .system = true, .position = true, .start = true, .queue = true, .subscriptions = true};
  EXPECT_EQ(missing_rights(rights), std::nullopt);
  rights.queue = false;
  const auto finding = missing_rights(rights);
  ASSERT_TRUE(finding);
  EXPECT_EQ(finding->lint, Lint::kSideRights);
  EXPECT_NE(finding->text.find("pg_notification_queue_usage()"), std::string::npos);
  EXPECT_EQ(finding->text.find("pg_control_system()"), std::string::npos);
}

}  // namespace
}  // namespace latchkey
