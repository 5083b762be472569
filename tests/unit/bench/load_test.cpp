// The parts of latchkey-bench that need no server.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <random>
#include <set>

#include "bench/load/bare_server.h"
#include "bench/load/generator.h"
#include "bench/load/keys.h"
#include "bench/load/latency.h"
#include "bench/load/peer.h"
#include "bench/load/plot.h"
#include "bench/load/report.h"
#include "tests/reference/client_codec.h"

namespace latchkey {
namespace {

using testing::HasSubstr;
using testing::Not;

// ---- latencies

TEST(LatencyHistogram, IsExactToASixtyFourth) {
  std::mt19937_64 random(1);
  for (int i = 0; i < 100'000; ++i) {
    const auto ns = static_cast<std::int64_t>(random() >> (2 + random() % 60));
    LatencyHistogram one;
    one.record(ns);
    one.record(ns * 2 + 1);  // keeps the value from being the greatest
    const auto told = static_cast<double>(one.quantile_ns(0.5)), is = static_cast<double>(ns);
    EXPECT_GE(told, is * 0.9999999);
    EXPECT_LE(told, is * (1 + 1.0 / 64) + 1);
  }
}

TEST(LatencyHistogram, GivesQuantilesOfASortedList) {
  LatencyHistogram histogram;
  std::vector<std::int64_t> sorted;
  std::mt19937_64 random(2);
  for (int i = 0; i < 10'001; ++i)
    sorted.push_back(static_cast<std::int64_t>(random() % 1'000'000));
  for (const std::int64_t ns : sorted) histogram.record(ns);
  std::ranges::sort(sorted);
  for (const double share : {0.0, 0.01, 0.5, 0.9, 0.99, 0.999, 1.0}) {
    const auto rank = static_cast<std::size_t>(std::ceil(share * 10'001));
    const auto is = static_cast<double>(sorted[rank == 0 ? 0 : rank - 1]);
    EXPECT_NEAR(static_cast<double>(histogram.quantile_ns(share)), is, is / 64 + 1) << share;
  }
  EXPECT_EQ(histogram.max_ns(), static_cast<std::uint64_t>(sorted.back()));
  EXPECT_EQ(histogram.quantile_ns(1), histogram.max_ns());
}

TEST(LatencyHistogram, MergesAndHoldsAllThereIs) {
  LatencyHistogram a, b;
  EXPECT_EQ(a.quantile_ns(0.99), 0U);
  a.record(-5);
  a.record(0);
  b.record(std::numeric_limits<std::int64_t>::max(), 3);
  a.merge(b);
  EXPECT_EQ(a.count(), 5U);
  EXPECT_EQ(a.max_ns(), static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max()));
  EXPECT_EQ(a.quantile_ns(0.4), 0U);
}

// ---- keys

TEST(BenchKeys, AreOfOneShapeAndAllDifferent) {
  std::set<std::string> seen;
  for (std::uint64_t i = 0; i < 10'000; ++i) {
    for (const std::string& key : {generated_key(i), unknown_key(i)}) {
      EXPECT_EQ(key.size(), 41U);
      EXPECT_TRUE(seen.insert(key).second);
    }
    EXPECT_EQ(generated_value(i).size(), 64U);
  }
}

TEST(BenchKeys, AreKnownInTheShareThatIsAskedFor) {
  const KeyTable table = KeyTable::generated(1000);
  for (const double hits : {0.0, 0.3, 1.0}) {
    KeyChooser chooser(table, {.hits = hits}, 0);
    int known = 0;
    for (int i = 0; i < 20'000; ++i) {
      const BenchKey key = chooser.next();
      known += key.known ? 1 : 0;
      if (key.known) {
        EXPECT_EQ(key.text, generated_key(key.index));
      } else {
        EXPECT_TRUE(key.text.starts_with("lk_other_"));
      }
    }
    EXPECT_NEAR(known, hits * 20'000, 400) << hits;
  }
}

TEST(BenchKeys, FollowTheDistributionThatIsAskedFor) {
  constexpr int kDraws = 200'000;
  for (const double exponent : {0.5, 0.99, 1.0, 1.5}) {
    constexpr std::uint64_t kCount = 1000;
    ZipfDistribution zipf(kCount, exponent);
    std::mt19937_64 random(3);
    std::vector<int> counts(kCount);
    for (int i = 0; i < kDraws; ++i) {
      const std::uint64_t rank = zipf(random);
      ASSERT_LT(rank, kCount);
      ++counts[rank];
    }
    double all = 0;
    for (std::uint64_t rank = 0; rank < kCount; ++rank) {
      all += std::pow(static_cast<double>(rank + 1), -exponent);
    }
    for (const std::uint64_t rank : {0U, 1U, 2U, 9U, 99U}) {
      const double wanted = kDraws * std::pow(static_cast<double>(rank + 1), -exponent) / all;
      EXPECT_NEAR(counts[rank], wanted, 5 * std::sqrt(wanted) + 1) << exponent << " rank " << rank;
    }
  }
}

TEST(BenchKeys, AreEachReachedBySomeRank) {
  const KeyTable table = KeyTable::generated(1000);  // a size with many factors
  KeyChooser chooser(table, {.exponent = 0.1}, 0);
  std::set<std::uint64_t> reached;
  for (int i = 0; i < 100'000; ++i) reached.insert(chooser.next().index);
  EXPECT_EQ(reached.size(), 1000U);
}

TEST(BenchKeys, RepeatWithTheSameSeedAndNotWithAnotherThread) {
  const KeyTable table = KeyTable::generated(1000);
  KeyChooser one(table, {.seed = 7}, 0), same(table, {.seed = 7}, 0), other(table, {.seed = 7}, 1);
  int differ = 0;
  for (int i = 0; i < 1000; ++i) {
    const std::uint64_t index = one.next().index;
    EXPECT_EQ(index, same.next().index);
    differ += other.next().index == index ? 0 : 1;
  }
  EXPECT_GT(differ, 900);
}

TEST(BenchKeys, ComeInWholeBatches) {
  const KeyTable table = KeyTable::generated(10);
  KeySequence sequence(table, {}, 0, 7);
  for (int i = 0; i < 100'000; ++i) {
    const auto keys = sequence.next();
    ASSERT_EQ(keys.size(), 7U);
    for (const BenchKey& key : keys) ASSERT_EQ(key.text, generated_key(key.index));
  }
}

TEST(BenchKeys, ComeFromAFile) {
  const std::string path = testing::TempDir() + "latchkey_bench_keys";
  std::ofstream(path) << "first\n\nsecond key\n";
  const KeyTable table = KeyTable::from_file(path);
  ASSERT_EQ(table.size(), 2U);
  EXPECT_EQ(table.known(1), "second key");
  EXPECT_FALSE(table.is_generated());
  std::ofstream(path) << "\n";
  EXPECT_THROW((void)KeyTable::from_file(path), std::runtime_error);
  std::ofstream(path) << std::string(4097, 'x') << "\n";
  EXPECT_THROW((void)KeyTable::from_file(path), std::runtime_error);
  std::remove(path.c_str());
  EXPECT_THROW((void)KeyTable::from_file(path), std::runtime_error);
}

// ---- peers: each accepts a right reply, in any pieces, and detects every other one

std::string value_text(std::uint64_t index) {
  const auto value = generated_value(index);
  return {value.begin(), value.end()};
}

std::string floor_reply(std::uint64_t id, bool known) {
  const FloorReply reply{id, static_cast<std::uint8_t>(known), {}};
  return {reinterpret_cast<const char*>(&reply), sizeof reply};
}

struct Exchange {
  const char* peer;
  bool known;
  std::string reply;
};

std::string verified(bool known, std::uint64_t row, latchkey_verdict verdict) {
  OutBuffer out, claims;
  const std::string id = std::to_string(row);
  std::vector<std::uint8_t> claim = {LATCHKEY_CLAIM_KEY_ID, static_cast<std::uint8_t>(id.size()),
                                     0};
  claim.insert(claim.end(), id.begin(), id.end());
  const Bytes part(claim);
  VerifiedWriter writer(out, 1, 1);
  writer.add(verdict, LATCHKEY_FRESH, 0, known ? std::span(&part, 1) : std::span<const Bytes>());
  writer.finish();
  return std::string(as_text(out.bytes()));
}

class PeerTest : public testing::TestWithParam<Exchange> {
 protected:
  // The result of judge() after one request.
  static std::size_t judged(const std::string& reply) {
    const PeerOptions options{.name = GetParam().peer};
    const auto peer = make_peer(options);
    const std::string text = generated_key(41);
    const BenchKey key{text, 41, GetParam().known};
    OutBuffer out;
    peer->encode(out, {&key, 1});
    EXPECT_GT(out.size(), 0U);
    const Bytes bytes(reinterpret_cast<const std::uint8_t*>(reply.data()), reply.size());
    return peer->judge(bytes, {&key, 1});
  }
};

TEST_P(PeerTest, TakesARightAnswerWholeAndNoPartOfIt) {
  const std::string& reply = GetParam().reply;
  EXPECT_EQ(judged(reply), reply.size());
  EXPECT_EQ(judged(reply + "and more"), reply.size());
  for (std::size_t length = 0; length < reply.size(); ++length) {
    EXPECT_EQ(judged(reply.substr(0, length)), 0U) << length;
  }
}

TEST_P(PeerTest, FindsOutEveryByteThatMatters) {
  const std::string& reply = GetParam().reply;
  std::size_t found = 0;
  for (std::size_t i = 0; i < reply.size(); ++i) {
    std::string other = reply;
    other[i] = static_cast<char>(other[i] ^ 1);
    try {
      (void)judged(other);
    } catch (const WrongAnswer&) {
      ++found;
    }
  }
  // Changes in the names of the key's owner must be found. A changed length may ask for more bytes
  // instead, and ages may have any value.
  const bool floor = std::string_view(GetParam().peer) == "floor";  // 9 bytes and zeros
  EXPECT_GE(found, floor ? 9 : std::min<std::size_t>(reply.size() / 4, 32)) << reply.size();
}

INSTANTIATE_TEST_SUITE_P(
    All, PeerTest,
    testing::Values(Exchange{"latchkey", true, verified(true, 42, LATCHKEY_VALID)},
                    Exchange{"latchkey", false, verified(false, 0, LATCHKEY_UNKNOWN)},
                    Exchange{"echo", true, generated_key(41).substr(0, 32)},
                    Exchange{"floor", true, floor_reply(1, true)},
                    Exchange{"floor", false, floor_reply(1, false)},
                    Exchange{"redis", true, "$64\r\n" + value_text(41) + "\r\n"},
                    Exchange{"redis", false, "$-1\r\n"},
                    Exchange{"memcached", true, "VA 64\r\n" + value_text(41) + "\r\n"},
                    Exchange{"memcached", false, "EN\r\n"}));

TEST(Peers, TellAWrongVerdictByName) {
  const PeerOptions options;
  const auto peer = make_peer(options);
  const std::string text = generated_key(41);
  const BenchKey key{text, 41, true};
  OutBuffer out;
  peer->encode(out, {&key, 1});
  const std::string reply = verified(false, 0, LATCHKEY_REVOKED);
  try {
    (void)peer->judge({reinterpret_cast<const std::uint8_t*>(reply.data()), reply.size()},
                      {&key, 1});
    FAIL();
  } catch (const WrongAnswer& error) {
    EXPECT_THAT(error.what(), HasSubstr("wrong answer for known key lk_bench_"));
    EXPECT_THAT(error.what(), HasSubstr("revoked"));
  }
  const std::string another = verified(true, 43, LATCHKEY_VALID);
  EXPECT_THROW(
      (void)make_peer(options)->judge(
          {reinterpret_cast<const std::uint8_t*>(another.data()), another.size()}, {&key, 1}),
      WrongAnswer);
}

TEST(Peers, AskForEveryKeyInItsOwnRequest) {
  const PeerOptions options;
  const auto peer = make_peer(options);
  std::mt19937_64 random(5);
  for (std::uint64_t id = 1; id <= 1000; ++id) {
    std::vector<std::string> texts;
    for (std::size_t n = random() % 4 + 1; n > 0; --n) {
      texts.push_back(random() % 2 == 0 ? generated_key(random()) : std::string(random() % 9, 'k'));
    }
    std::vector<BenchKey> keys;
    for (const std::string& text : texts) keys.push_back({text, 0, false});
    OutBuffer out, expected;
    peer->encode(out, keys);
    encode_verify(expected, id, {}, std::vector<std::string_view>(texts.begin(), texts.end()));
    EXPECT_EQ(as_text(out.bytes()), as_text(expected.bytes()));
  }
}

TEST(Peers, HaveNames) { EXPECT_THROW((void)make_peer({.name = "mysql"}), std::runtime_error); }

// ---- plots and reports

TEST(Plot, HasTicksThatPeopleWouldChoose) {
  const auto labels = [](const std::vector<Tick>& ticks) {
    std::string all;
    for (const Tick& tick : ticks) all += tick.label + " ";
    return all;
  };
  EXPECT_EQ(labels(linear_ticks(10)), "0 2 4 6 8 10 ");
  EXPECT_EQ(labels(linear_ticks(4.3e6)), "0 1.00M 2.00M 3.00M 4.00M 5.00M ");
  EXPECT_EQ(labels(linear_ticks(0)), "0 0.20 0.40 0.60 0.80 1 ");
  EXPECT_EQ(labels(logarithmic_ticks(17, 4000)), "10 100 1.00k 10.0k ");
  EXPECT_EQ(labels(logarithmic_ticks(10, 10)), "10 100 ");
}

TEST(Plot, EscapesNames) {
  const std::string svg = line_plot("<t>", {"x", linear_ticks(1)}, {"y & z", linear_ticks(1)},
                                    {{"a'b\"", {{0, 0}, {1, 1}}}});
  EXPECT_THAT(svg, HasSubstr("&lt;t&gt;"));
  EXPECT_THAT(svg, HasSubstr("y &amp; z"));
  EXPECT_THAT(svg, HasSubstr("a&#39;b&quot;"));
  EXPECT_THAT(svg, Not(HasSubstr("<t>")));
}

LoadResult some_result() {
  LoadResult result;
  result.seconds = 2;
  for (int second = 0; second < 2; ++second) {
    Interval interval;
    interval.begin_s = second;
    for (int i = 1; i <= 1000; ++i) interval.latencies.record(i * 1000);
    interval.requests = 1000;
    result.latencies.merge(interval.latencies);
    result.intervals.push_back(interval);
  }
  result.requests = 2000;
  result.keys = 8000;
  return result;
}

TEST(Report, SaysWhatWasMeasured) {
  LoadSettings settings;
  settings.batch = 4;
  const auto report = report_json(settings, some_result(), "a run");
  EXPECT_EQ(report.at("keys_per_s"), 4000);
  EXPECT_EQ(report.at("requests_per_s"), 1000);
  EXPECT_NEAR(report.at("latency_us").at("p50").get<double>(), 500, 10);
  EXPECT_NEAR(report.at("latency_us").at("p99").get<double>(), 990, 16);
  EXPECT_EQ(report.at("latency_us").at("max"), 1000);
  EXPECT_EQ(report.at("intervals").size(), 2U);
  EXPECT_EQ(report.at("percentiles").back(), nlohmann::ordered_json({100.0, 1000.0}));
  EXPECT_THAT(report_text(report), HasSubstr("4.00k keys/s, 1.00k requests/s for 2.0 s"));
}

TEST(Report, IsAPageThatNeedsNothingElse) {
  LoadSettings settings;
  const auto one = report_json(settings, some_result(), "one"),
             two = report_json(settings, some_result(), "<two>");
  const std::string page = report_html({one, two}, "Both");
  for (const char* part : {"<!doctype html>", "Throughput over time", "Latency by percentile",
                           "keys a second", "latency, µs", "time, s", "99.9 %", "&lt;two&gt;",
                           "prefers-color-scheme: dark", "less is better"}) {
    EXPECT_THAT(page, HasSubstr(part));
  }
  for (const char* part : {"http://", "https://", "src=", "<script", "url("}) {
    EXPECT_THAT(page, Not(HasSubstr(part)));
  }
  EXPECT_THAT(report_html({one}, "One"), Not(HasSubstr("less is better"))) << "nothing to compare";
}

}  // namespace
}  // namespace latchkey
