#include "tool/top_screen.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <nlohmann/json.hpp>

#include "tool/report.h"
#include "tool/text.h"

namespace latchkey {
namespace {

using nlohmann::ordered_json;
using testing::Each;
using testing::ElementsAre;
using testing::Field;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
using testing::SizeIs;

TEST(ShortNumber, HasThreeDigitsAndAUnit) {
  for (const auto& [value, text] : std::vector<std::pair<double, const char*>>{{0, "0"},
                                                                               {7, "7"},
                                                                               {0.5, "0.50"},
                                                                               {12, "12"},
                                                                               {12.34, "12.3"},
                                                                               {99.96, "100"},
                                                                               {999, "999"},
                                                                               {999.4, "999"},
                                                                               {999.5, "1.00k"},
                                                                               {1000, "1.00k"},
                                                                               {9995, "10.0k"},
                                                                               {12'345, "12.3k"},
                                                                               {123'456, "123k"},
                                                                               {999'600, "1.00M"},
                                                                               {4'560'000, "4.56M"},
                                                                               {7e15, "7000T"}}) {
    EXPECT_EQ(short_number(value), text) << value;
  }
}

TEST(PerSecond, IsNothingWhereACounterWentBack) {
  EXPECT_EQ(per_second(10, 30, 2), 10);
  EXPECT_EQ(per_second(30, 10, 2), std::nullopt);
  EXPECT_EQ(per_second(10, 30, 0), std::nullopt);
}

TEST(Quantile, IsTheBoundOfTheBucketThatHoldsIt) {
  const std::vector<double> bounds = {1, 2, 5};
  EXPECT_EQ(quantile_s(bounds, {0, 0, 0, 0}, 0.5), std::nullopt);
  EXPECT_EQ(quantile_s(bounds, {10, 0, 0, 0}, 0.99), 1);
  EXPECT_EQ(quantile_s(bounds, {50, 49, 1, 0}, 0.5), 1);
  EXPECT_EQ(quantile_s(bounds, {50, 49, 1, 0}, 0.99), 2);
  EXPECT_EQ(quantile_s(bounds, {0, 0, 0, 3}, 0.5), std::numeric_limits<double>::infinity());
  EXPECT_EQ(quantile_s({}, {3}, 0.5), std::nullopt);
}

ordered_json report() {
  return ordered_json::parse(R"({
    "version": "1.2.3", "pid": 42, "uptime_s": 3700, "workers": 2,
    "databases": [{"name": "main", "state": "live", "since_s": 60, "last_error": "gone",
                   "connects": 3, "notifications": 100, "pending_ids": 0, "heartbeat_us": 850}],
    "sources": [{"name": "keys", "state": "fresh", "age_ms": 412, "since_s": 60, "keys": 1200000,
                 "accepted": 5000, "rereads": 10, "loads": 1,
                 "memory_bytes": {"records": 1000000, "map": 500000, "waiting": 700000}}],
    "requests": 1000, "verdicts": {"valid": 5000, "revoked": 0, "unknown": 70},
    "answer_time": {"sum_s": 1, "le_s": [0.00001, 0.001], "counts": [900, 100, 0]},
    "protocol_errors": 0,
    "connections": {"open": 5, "accepted": 9, "refused_uid_limit": 2},
    "callers": [{"uid": 1000, "connections": 4, "unknown_keys": 10, "refused": 0, "waiting_bytes": 0},
                {"uid": 65534, "connections": 1, "unknown_keys": 60, "refused": 2,
                 "waiting_bytes": 2048}]})");
}

std::string text(const std::vector<ScreenLine>& lines) {
  std::string all;
  for (const ScreenLine& line : lines) all += line.text + "\n";
  return all;
}

// The columns, with each gap reduced to one space.
std::string squeezed(const std::vector<ScreenLine>& lines) {
  std::string all;
  for (const char c : text(lines)) {
    if (c != ' ' || (!all.empty() && all.back() != ' ')) all += c;
  }
  return all;
}

TEST(TopScreen, TellsRatesBetweenTwoReports) {
  const ordered_json before = report();
  ordered_json now = report();
  now["requests"] = 3000;
  now["verdicts"]["valid"] = 25'000;
  now["sources"][0]["accepted"] = 25'000;
  now["sources"][0]["rereads"] = 30;
  now["databases"][0]["notifications"] = 110;
  now["answer_time"]["counts"] = {900, 2100, 0};
  now["callers"][0]["unknown_keys"] = 110;
  now["connections"]["refused_uid_limit"] = 12;
  const auto lines = top_screen({.now = &now, .before = &before, .seconds = 2}, 100);
  const std::string all = squeezed(lines);
  EXPECT_THAT(all,
              HasSubstr("latchkeyd 1.2.3, pid 42, up 1h1m, 2 worker(s)\nEvery source is fresh"));
  EXPECT_THAT(all, HasSubstr("requests 1.00k 3.00k half within 1ms, 99% within 1ms"));
  EXPECT_THAT(all, HasSubstr("valid 10.0k 25.0k"));
  EXPECT_THAT(all, HasSubstr("unknown 0 70"));
  EXPECT_THAT(all, Not(HasSubstr("revoked")));
  EXPECT_THAT(all, HasSubstr("keys fresh 1m 412ms 1.20M 10.0k 10 1"));
  EXPECT_THAT(all, HasSubstr("main live 1m 850us 3 5 0"));
  EXPECT_THAT(all, HasSubstr("refused uid limit 12 (5/s)"));
  EXPECT_THAT(all, HasSubstr("memory for keys: 1.50MB"));
  EXPECT_LT(all.find("uid 1000 "), all.find("uid 65534 ")) << "who guesses now stands first";
}

TEST(TopScreen, HasNoRatesBeforeTheSecondReport) {
  const ordered_json now = report();
  const std::string all = squeezed(top_screen({.now = &now}, 100));
  EXPECT_THAT(all, HasSubstr("requests - 1.00k half within 10us, 99% within 1ms"));
  EXPECT_THAT(all, HasSubstr("uid 65534 1 - 60 - 2 2.05kB"));
}

TEST(TopScreen, PutsTroubleFirst) {
  ordered_json now = report();
  now["databases"][0]["state"] = "lost";
  now["sources"][0]["state"] = "stale";
  now["sources"][0]["problems"] = {"its triggers are gone"};
  const auto lines = top_screen({.now = &now}, 100);
  EXPECT_EQ(lines.at(1).text, "! database main lost for 1m: gone");
  EXPECT_EQ(lines.at(2).text, "! source keys stale for 1m");
  EXPECT_EQ(lines.at(3).text, "! source keys: its triggers are gone");
  EXPECT_EQ(lines.at(1).look, ScreenLine::Look::kTrouble);
}

TEST(TopScreen, TellsACauseToItsEnd) {
  ordered_json now = report();
  now["databases"][0]["state"] = "lost";
  std::string cause;
  for (int i = 0; i < 40; ++i) cause += "word" + std::to_string(i) + " ";
  now["databases"][0]["last_error"] = cause + "the-very-end";
  const auto lines = top_screen({.now = &now}, 100);
  EXPECT_THAT(squeezed(lines), HasSubstr("the-very-end"));
  EXPECT_EQ(lines.at(2).look, ScreenLine::Look::kTrouble);
}

TEST(TopScreen, IsNoWiderThanTheScreenAndPrintable) {
  ordered_json now = report();
  now["sources"][0]["state"] = "stale";
  now["sources"][0]["problems"] = {"\x1b[2J" + std::string(300, 'x')};
  for (const std::size_t columns : {0U, 1U, 20U, 80U}) {
    const auto lines = top_screen({.now = &now}, columns);
    for (const ScreenLine& line : lines) {
      EXPECT_LE(line.text.size(), columns);
      EXPECT_EQ(line.text.find('\x1b'), std::string::npos);
    }
  }
}

TEST(TopScreen, ShowsWhatACallerWithoutAllRightsIsTold) {
  const auto now = ordered_json::parse(
      R"({"version": "1", "uptime_s": 5, "sources": [{"name": "keys", "state": "fresh", "age_ms": 3}]})");
  const std::string all = squeezed(top_screen({.now = &now}, 100));
  EXPECT_THAT(all, HasSubstr("keys fresh - 3ms - - - 0"));
  EXPECT_THAT(all, HasSubstr("`reasons = true`"));
}

TEST(TopScreen, SurvivesReportsThatSayOtherThings) {
  for (const char* odd :
       {"{}", R"({"verdicts": 3})", R"({"verdicts": {}, "sources": {}, "callers": [1, {}]})",
        R"({"verdicts": {"valid": "x"}, "answer_time": {"le_s": [], "counts": []}})"}) {
    const ordered_json now = ordered_json::parse(odd);
    EXPECT_THAT(top_screen({.now = &now, .before = &now, .seconds = 1}, 80), Not(IsEmpty())) << odd;
  }
}

TEST(Report, HasNoTroubleWhereThereIsNone) { EXPECT_THAT(report_troubles(report()), IsEmpty()); }

TEST(Report, NamesAnotherServerAndWhoIsStuck) {
  ordered_json status = report();
  status["databases"][0]["identity_changes"] = 2;
  status["databases"][0]["stalled_readers"] = {"worker 0"};
  EXPECT_THAT(report_troubles(status),
              ElementsAre(Field(&Trouble::what, "database main: ANOTHER SERVER answered"),
                          Field(&Trouble::what, "worker 0 is stuck")));
}

}  // namespace
}  // namespace latchkey
