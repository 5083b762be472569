// The waits of the refresh policy between its attempts to connect: growth, jitter, several servers.
#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "tests/unit/support/helpers.h"
#include "tests/unit/support/refresh_fixture.h"

namespace latchkey {
namespace {

using test::Play;
using test::Script;
using test::without_audit;

TEST(RefreshBackoff, GrowsWithJitterWithinItsBoundsAndStartsAnewAfterAProof) {
  const RefreshSettings settings;
  std::set<std::int64_t> first_waits;
  for (std::uint64_t seed = 0; seed < 50; ++seed) {
    Play play(1, without_audit(), test::seed() + seed);
    std::int64_t last = 0;
    for (int attempt = 0; attempt < 40; ++attempt) {
      EXPECT_EQ(play.said(), "connect");
      play.refresh.failed(play.now);
      const std::int64_t wait = std::get<Refresh::Wait>(play.next()).until_ns - play.now;
      EXPECT_GE(wait, settings.backoff_min_ns) << "attempt " << attempt;
      EXPECT_LE(wait, settings.backoff_max_ns) << "attempt " << attempt;
      if (attempt == 0) first_waits.insert(wait);
      EXPECT_GE(2 * wait, std::min(last, settings.backoff_max_ns)) << "it grows, jitter aside";
      EXPECT_TRUE(attempt < 10 || wait >= settings.backoff_max_ns / 2) << "attempt " << attempt;
      last = wait;
      play.now += wait;
    }
    Script().asks("connect").listens().can_work().asks("barrier 1").barrier_returns(1).play(play);
    Script().asks("load 0").is_done().play(play);
    EXPECT_TRUE(std::holds_alternative<Refresh::Prove>(play.next()));
    play.refresh.failed(play.now);
    const std::int64_t wait = std::get<Refresh::Wait>(play.next()).until_ns - play.now;
    EXPECT_LE(wait, 2 * settings.backoff_min_ns);
  }
  EXPECT_GT(first_waits.size(), 40U) << "hosts that lost one database do not all return at once";
}

TEST(RefreshBackoff, IsShortWhileSomebodyWaitsForASync) {
  const RefreshSettings settings;
  for (const bool before : {false, true}) {
    Play play(1, without_audit(), test::seed());
    for (int attempt = 0; attempt < 20; ++attempt) {
      EXPECT_EQ(play.said(), "connect");
      if (before) play.refresh.sync_wanted(1);
      play.refresh.failed(play.now);
      if (!before && attempt == 19) play.refresh.sync_wanted(1);
      const std::int64_t wait = std::get<Refresh::Wait>(play.next()).until_ns - play.now;
      if (before || attempt == 19) {
        EXPECT_LE(wait, settings.sync_backoff_ns);
      }
      play.now += wait;
    }
  }
}

TEST(RefreshHosts, AreTriedInTurnBeforeTheWaitGrows) {
  const RefreshSettings settings = without_audit();
  Play play(1, settings, test::seed());
  EXPECT_EQ(play.said(), "connect");
  for (int round = 0; round < 4; ++round) {
    for (int host = 0; host < 3; ++host) {
      play.refresh.failed(play.now, /*others=*/host < 2);
      const auto action = play.next();
      std::int64_t waited = 0;
      if (const auto* wait = std::get_if<Refresh::Wait>(&action)) {
        waited = wait->until_ns - play.now;
        play.now = wait->until_ns;
        EXPECT_EQ(play.said(), "connect");
      }
      const std::int64_t least = settings.backoff_min_ns << round;
      if (host < 2) {
        EXPECT_LE(waited, settings.backoff_min_ns) << "another server may be there";
      } else {
        EXPECT_GE(waited,
                  std::min(settings.backoff_max_ns, std::max(settings.backoff_min_ns, least / 2)));
      }
    }
  }
}

}  // namespace
}  // namespace latchkey
