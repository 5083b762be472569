// The status of a daemon as JSON, for each kind of caller; the sources as people read them.
#include "daemon/observe/status.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "base/wire_names.h"
#include "tests/unit/support/helpers.h"
#include "tests/unit/support/observed_daemon.h"

namespace latchkey {
namespace {

using nlohmann::json;
using test::kBootNs;
using test::kMs;
using test::kS;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;

constexpr Rights kWhole{.sources = 0b111, .all_sources = true, .reasons = true};
constexpr Rights kWithoutReasons{.sources = 0b111, .all_sources = true, .reasons = false};
constexpr Rights kOnlyAlpha{.sources = 0b001, .all_sources = false, .reasons = true};
constexpr Rights kNothing{.sources = 0, .all_sources = false, .reasons = false};

class StatusTest : public testing::Test {
 protected:
  json status(const Rights& rights = kWhole) const {
    return json::parse(status_json(daemon_.inputs, rights));
  }
  json source(const std::string& name, const Rights& rights = kWhole) const {
    const json whole = status(rights);
    for (const json& each : whole.at("sources")) {
      if (each.at("name") == name) return each;
    }
    return nullptr;
  }
  std::vector<std::string> source_names(const Rights& rights) const {
    std::vector<std::string> names;
    const json whole = status(rights);
    for (const json& each : whole.at("sources")) names.push_back(each.at("name"));
    return names;
  }

  test::ObservedDaemon daemon_;
};

// ---- callers with the whole status

TEST_F(StatusTest, TellsOfTheDaemon) {
  daemon_.inputs.log_lines_dropped = 17;
  const json whole = status();
  EXPECT_EQ(whole.at("version"), LATCHKEY_VERSION_TEXT);
  EXPECT_EQ(whole.at("pid"), getpid());
  EXPECT_EQ(whole.at("uptime_s"), 3600.0);
  EXPECT_EQ(whole.at("workers"), 2);
  EXPECT_EQ(whole.at("log_lines_dropped"), 17);
  EXPECT_EQ(whole.at("socket_in_place"), true);
  EXPECT_EQ(whole.at("reloads"), json::parse(R"({"succeeded":0,"failed":0,"under_way":false})"));
}

TEST_F(StatusTest, AddsUpTheCountersOfTheWorkers) {
  const std::pair<Counter WorkerStats::*, const char*> counters[] = {
      {&WorkerStats::requests, "/requests"},
      {&WorkerStats::protocol_errors, "/protocol_errors"},
      {&WorkerStats::explained, "/explained"},
      {&WorkerStats::refused_no_reasons, "/refused_no_reasons"},
      {&WorkerStats::refused_operations, "/refused_operations"},
      {&WorkerStats::closed_idle, "/connections/closed_idle"},
      {&WorkerStats::closed_stalled, "/connections/closed_stalled"},
      {&WorkerStats::closed_hoarding, "/connections/closed_hoarding"}};
  const std::pair<Counter AcceptStats::*, const char*> accepts[] = {
      {&AcceptStats::accepted, "/connections/accepted"},
      {&AcceptStats::refused_not_allowed, "/connections/refused_not_allowed"},
      {&AcceptStats::refused_overloaded, "/connections/refused_overloaded"},
      {&AcceptStats::refused_uid_limit, "/connections/refused_uid_limit"},
      {&AcceptStats::refused_no_descriptors, "/connections/refused_no_descriptors"},
      {&AcceptStats::accept_errors, "/connections/accept_errors"}};
  std::uint64_t count = 0;
  for (const auto& [counter, path] : counters) {
    (daemon_.workers[0].*counter).add(++count);
    (daemon_.workers[1].*counter).add(100 * count);
  }
  for (const auto& [counter, path] : accepts) (daemon_.accepts.*counter).add(++count);
  const json whole = status();
  count = 0;
  for (const auto& [counter, path] : counters) {
    EXPECT_EQ(whole.at(json::json_pointer(path)), 101 * ++count) << path;
  }
  for (const auto& [counter, path] : accepts) {
    EXPECT_EQ(whole.at(json::json_pointer(path)), ++count) << path;
  }
}

TEST_F(StatusTest, CountsVerdictsAsFound) {
  for (std::size_t v = 0; v < LATCHKEY_VERDICTS; ++v) {
    daemon_.workers[0].verdicts[v].add(v);
    daemon_.workers[1].verdicts[v].add(100);
    daemon_.workers[1].told[v].add(5000);  // counted elsewhere
  }
  const json verdicts = status().at("verdicts");
  EXPECT_EQ(verdicts.size(), std::size_t{LATCHKEY_VERDICTS});
  for (int v = 0; v < LATCHKEY_VERDICTS; ++v) {
    EXPECT_EQ(verdicts.at(verdict_name(static_cast<latchkey_verdict>(v))), 100 + v);
  }
}

TEST_F(StatusTest, CountsOpenConnections) {
  daemon_.workers[0].connections_opened.add(10);
  daemon_.workers[1].connections_opened.add(5);
  daemon_.workers[1].connections_closed.add(4);
  EXPECT_EQ(status().at("connections").at("open"), 11);
}

TEST_F(StatusTest, GivesTheTimesOfAnswers) {
  daemon_.workers[0].answered_in.add(10'000);  // at a bound
  daemon_.workers[0].answered_in.add(10'001);
  daemon_.workers[1].answered_in.add(20'000 * kS);
  const json times = status().at("answer_time");
  EXPECT_EQ(times.at("counts").size(), times.at("le_s").size() + 1);
  EXPECT_EQ(times.at("le_s").at(0), 1e-5);
  EXPECT_EQ(times.at("counts").at(0), 1);
  EXPECT_EQ(times.at("counts").at(1), 1);
  EXPECT_EQ(times.at("counts").back(), 1) << "longer than the last bound";
  EXPECT_DOUBLE_EQ(times.at("sum_s"), 20'000 + 20'001e-9);
}

TEST_F(StatusTest, ListsCallers) {
  Admission::Caller caller;
  caller.connections = 1;
  caller.waiting_bytes = 2;
  caller.refused = 3;
  caller.unknown = 4;
  daemon_.inputs.callers = {{1001, caller}, {0, {}}};
  const json callers = status().at("callers");
  ASSERT_EQ(callers.size(), 2U);
  EXPECT_EQ(callers[0], json::parse(R"({"uid":1001,"connections":1,"waiting_bytes":2,"refused":3,
                                        "unknown_keys":4})"));
  EXPECT_EQ(callers[1].at("uid"), 0);
}

TEST_F(StatusTest, TellsHowReloadsWent) {
  daemon_.inputs.reload = {.succeeded = 3,
                           .failed = 2,
                           .under_way = true,
                           .last_error = "line 7:\nunknown \x1b[1m setting",
                           .need_restart = {"`socket`", "`workers`\x07"}};
  const json reloads = status().at("reloads");
  EXPECT_EQ(reloads, json({{"succeeded", 3},
                           {"failed", 2},
                           {"under_way", true},
                           {"last_error", "line 7:?unknown ?[1m setting"},
                           {"need_restart", {"`socket`", "`workers`?"}}}));
}

TEST_F(StatusTest, TellsThatTheSocketIsGone) {
  daemon_.inputs.socket_in_place = false;
  EXPECT_EQ(status().at("socket_in_place"), false);
}

// ---- databases and sources

TEST_F(StatusTest, TellsOfDatabases) {
  LoaderStatus& first = daemon_.first_db();
  first.host = "db.example";
  first.identity.system = "7300000000000000000";
  first.identity.timeline = 3;
  first.connects = 4;
  first.failures = 5;
  first.barriers = 6;
  first.barrier_us = 700;
  first.trouble = "the queue is full";
  first.stalled_readers = {"worker 1"};
  first.stalled_ns = 2 * kS;
  json database = status().at("databases").at(1);
  EXPECT_FALSE(database.contains("last_error_age_s"));
  EXPECT_FALSE(database.contains("notification_queue")) << "not known";
  EXPECT_EQ(database.at("name"), "first_db");
  EXPECT_EQ(database.at("state"), "live");
  EXPECT_EQ(database.at("since_s"), 100.0);
  EXPECT_EQ(database.at("host"), "db.example");
  EXPECT_EQ(database.at("system_identifier"), "7300000000000000000");
  EXPECT_EQ(database.at("timeline"), 3);
  EXPECT_EQ(database.at("connects"), 4);
  EXPECT_EQ(database.at("failures"), 5);
  EXPECT_EQ(database.at("heartbeats"), 6);
  EXPECT_EQ(database.at("heartbeat_us"), 700);
  EXPECT_EQ(database.at("trouble"), "the queue is full");
  EXPECT_EQ(database.at("stalled_readers"), json::array({"worker 1"}));
  EXPECT_EQ(database.at("stalled_s"), 2.0);
  first.last_error = "refused";
  first.last_error_boot_ns = kBootNs - 9 * kS;
  first.queue_usage = 0;
  database = status().at("databases").at(1);
  EXPECT_EQ(database.at("last_error"), "refused");
  EXPECT_EQ(database.at("last_error_age_s"), 9.0);
  EXPECT_EQ(database.at("notification_queue"), 0.0);
}

TEST_F(StatusTest, ListsSourcesAsTheConfigurationDoes) {
  EXPECT_THAT(source_names(kWhole), ElementsAre("alpha", "beta", "gamma"));
  EXPECT_EQ(source("alpha").at("database"), "first_db");
  EXPECT_EQ(source("beta").at("database"), "second_db");
}

TEST_F(StatusTest, TellsHowSourcesStand) {
  EXPECT_EQ(source("alpha").at("state"), "fresh");
  EXPECT_EQ(source("alpha").at("age_ms"), 2000);
  EXPECT_EQ(source("alpha").at("since_s"), 90.0);
  EXPECT_EQ(source("beta").at("state"), "stale");
  EXPECT_EQ(source("beta").at("age_ms"), 30'000);
  EXPECT_EQ(source("beta").at("since_s"), 7.0);
  EXPECT_EQ(source("gamma").at("state"), "loading") << "connected, and never loaded";
  EXPECT_FALSE(source("gamma").contains("age_ms"));
  daemon_.beta.freshness.prove(kBootNs - 61 * kS);
  EXPECT_EQ(source("beta").at("state"), "unavailable");
  EXPECT_EQ(source("beta").at("since_s"), 1.0);
}

TEST_F(StatusTest, TellsWhatTheLoaderKnows) {
  SourceStatus& alpha = daemon_.alpha_status();
  json told = source("alpha");
  for (const char* part : {"load_rows_per_s", "rows_expected", "audited_ago_s", "unseen_s",
                           "unseen_max_s", "problems", "last_used"}) {
    EXPECT_FALSE(told.contains(part)) << part << ": not known";
  }
  EXPECT_EQ(told.at("loads_by_reason"), json::object());
  EXPECT_EQ(told.at("odd_rows"), json::object());
  EXPECT_EQ(told.at("findings"), json::array());
  alpha.rows = 11;
  alpha.keys = 10;
  alpha.ambiguous = 1;
  alpha.loads = 3;
  alpha.loads_by_reason[static_cast<std::size_t>(LoadReason::kNotified)] = 2;
  alpha.load_rows = 1000;
  alpha.load_seconds = 0.5;
  alpha.rows_expected = 12.4;
  alpha.audited_boot_ns = kBootNs - 60 * kS;
  alpha.seen_boot_ns = kBootNs - 50 * kS;
  alpha.unseen_max_ns = 40 * kS;
  alpha.memory = {.records = 1, .map = 2, .index = 3, .waiting = 4, .waiting_records = 5};
  alpha.oddities[static_cast<std::size_t>(Oddity::kNoKey)] = 6;
  alpha.last_used =
      LastUsedCounts{.written = 1, .pending = 2, .deferred = 3, .dropped = 4, .failures = 5};
  told = source("alpha");
  EXPECT_EQ(told.at("rows"), 11);
  EXPECT_EQ(told.at("keys"), 10);
  EXPECT_EQ(told.at("keys_in_several_rows"), 1);
  EXPECT_EQ(told.at("loads"), 3);
  EXPECT_EQ(told.at("loads_by_reason"),
            json::object({{load_reason_name(LoadReason::kNotified), 2}}));
  EXPECT_EQ(told.at("load_rows_per_s"), 2000);
  EXPECT_EQ(told.at("rows_expected"), 12);
  EXPECT_EQ(told.at("audited_ago_s"), 60.0);
  EXPECT_EQ(told.at("unseen_s"), 50.0);
  EXPECT_EQ(told.at("unseen_max_s"), 50.0) << "the time under way counts";
  EXPECT_EQ(told.at("memory_bytes"),
            json({{"records", 1}, {"map", 2}, {"index", 3}, {"waiting", 4}}));
  EXPECT_EQ(told.at("waiting_records"), 5);
  EXPECT_EQ(told.at("odd_rows"), json::object({{oddity_name(Oddity::kNoKey), 6}}));
  EXPECT_EQ(
      told.at("last_used"),
      json({{"written", 1}, {"pending", 2}, {"deferred", 3}, {"dropped", 4}, {"failures", 5}}));
  alpha.unseen_max_ns = 70 * kS;
  EXPECT_EQ(source("alpha").at("unseen_max_s"), 70.0);
}

TEST_F(StatusTest, ListsProblemsBeforeOtherFindings) {
  SourceStatus& alpha = daemon_.alpha_status();
  alpha.problems = {{Lint::kTableMissing, 0, "", "there is no table"}};
  alpha.findings = {{Lint::kShortKey, 7, "", "short keys"}};
  const json told = source("alpha");
  EXPECT_EQ(told.at("problems"), json::array({"there is no table"}));
  ASSERT_EQ(told.at("findings").size(), 2U);
  EXPECT_EQ(told.at("findings")[0].at("number"), rule_of(Lint::kTableMissing).number);
  EXPECT_EQ(told.at("findings")[0].at("severity"), "error");
  EXPECT_EQ(told.at("findings")[1].at("name"), rule_of(Lint::kShortKey).name);
  EXPECT_EQ(told.at("findings")[1].at("count"), 7);
  EXPECT_EQ(told.at("findings")[1].at("text"), "short keys");
}

TEST_F(StatusTest, CountsAcceptedKeysBySourceAndPepper) {
  daemon_.workers[0].verdicts_by_source[1][LATCHKEY_VALID].add(2);
  daemon_.workers[1].verdicts_by_source[1][LATCHKEY_VALID].add(3);
  daemon_.workers[1].verdicts_by_source[1][LATCHKEY_REVOKED].add(50);
  daemon_.workers[0].accepted_by_pepper[5].add(1);
  daemon_.workers[1].accepted_by_pepper[3].add(4);
  EXPECT_EQ(source("alpha").at("accepted"), 0);
  EXPECT_FALSE(source("alpha").contains("accepted_by_pepper"));
  EXPECT_EQ(source("beta").at("accepted"), 5);
  EXPECT_EQ(source("beta").at("accepted_by_pepper"), json({{"v1.key", 1}, {"v2.key", 4}}));
  EXPECT_FALSE(source("beta").contains("accepted_by_jwt_secret"));
}

// ---- callers with fewer rights

TEST_F(StatusTest, TellsOthersTheStatesOfTheirSourcesOnly) {
  EXPECT_EQ(
      status(kOnlyAlpha),
      json({{"version", LATCHKEY_VERSION_TEXT},
            {"uptime_s", 3600.0},
            {"sources", json::parse(R"([{"name":"alpha","state":"fresh","age_ms":2000}])")}}));
  const json sources = status(kWithoutReasons).at("sources");
  EXPECT_EQ(sources, json::parse(R"([{"name":"alpha","state":"fresh","age_ms":2000},
                                     {"name":"beta","state":"stale","age_ms":30000},
                                     {"name":"gamma","state":"loading"}])"));
  EXPECT_EQ(status(kWithoutReasons).size(), 3U);
  EXPECT_EQ(status(kNothing).at("sources"), json::array());
}

// The text of a caller of alpha depends on alpha's age and on the daemon's, on nothing else.
TEST_F(StatusTest, LeaksNothingOfOthersToACallerOfOneSource) {
  const std::string before = status_json(daemon_.inputs, kOnlyAlpha);
  const std::string before_without = status_json(daemon_.inputs, kWithoutReasons);
  const std::string whole = status_json(daemon_.inputs, kWhole);
  daemon_.inputs.callers = {{4242, {}}};
  test::find_other_reasons(daemon_);
  for (WorkerStats& worker : daemon_.workers) {
    worker.requests.add(3);
    worker.told[LATCHKEY_VALID].add(4);
    worker.connections_opened.add(5);
    worker.answered_in.add(6);
  }
  daemon_.accepts.accepted.add(7);
  for (LoaderStatus& loader : daemon_.inputs.loaders) {
    loader.state = Refresh::State::kLost;
    loader.host = "leak-host";
    loader.last_error = "leak-error";
    loader.trouble = "leak-trouble";
    loader.identity.system = "leak-system";
    for (SourceStatus& source : loader.sources) {
      source.keys = 77'777;
      source.problems = {{Lint::kTableMissing, 0, "", "leak-problem"}};
      source.findings = {{Lint::kShortKey, 1, "", "leak-finding"}};
    }
  }
  daemon_.inputs.reload.last_error = "leak-reload";
  daemon_.inputs.reload.failed = 1;
  daemon_.inputs.socket_in_place = false;
  daemon_.inputs.connections_max = 1;
  EXPECT_EQ(status_json(daemon_.inputs, kWithoutReasons), before_without);
  daemon_.beta.freshness.prove(kBootNs - 59 * kS);
  daemon_.gamma.freshness.prove(kBootNs);
  EXPECT_EQ(status_json(daemon_.inputs, kOnlyAlpha), before);
  EXPECT_NE(status_json(daemon_.inputs, kWhole), whole);
  for (const char* word : {"beta", "gamma", "first_db", "second_db", "4242"}) {
    EXPECT_THAT(before, Not(HasSubstr(word)));
  }
  daemon_.alpha.freshness.prove(kBootNs - 6 * kS);
  EXPECT_EQ(source("alpha", kOnlyAlpha).at("state"), "stale");
}

// ---- any content

TEST_F(StatusTest, GivesTheSameTextForTheSameFacts) {
  for (const Rights& rights : {kWhole, kWithoutReasons, kOnlyAlpha}) {
    EXPECT_EQ(status_json(daemon_.inputs, rights), status_json(daemon_.inputs, rights));
  }
}

TEST_F(StatusTest, StaysJsonWhateverTheDatabaseSays) {
  const std::string hostile = "\xff\xfe \"quoted\" \\ \n\t\x01 \xe2\x80";
  daemon_.first_db().last_error = hostile;
  daemon_.first_db().host = hostile;
  daemon_.inputs.reload.last_error = hostile;
  daemon_.alpha_status().problems = {{Lint::kDatabase, 0, "", hostile}};
  const json whole = status();
  EXPECT_THAT(std::string(whole.at("databases").at(1).at("last_error")), HasSubstr("\"quoted\""));
  EXPECT_EQ(whole.at("sources").size(), 3U);
}

TEST_F(StatusTest, LeavesOutFindingsThatAreLongerThanAReply) {
  constexpr std::size_t kReplyMax = LATCHKEY_REPLY_BYTES_MAX - LATCHKEY_HEADER_BYTES;
  const std::string text(100'000, 'f');
  SourceStatus& beta = daemon_.beta_status();
  for (int i = 0; i < 5; ++i) beta.findings.push_back({Lint::kShortKey, 1, "", text});
  EXPECT_FALSE(source("beta").contains("left_out"));
  EXPECT_EQ(source("beta").at("findings").size(), 5U);
  for (int i = 0; i < 10; ++i) beta.findings.push_back({Lint::kShortKey, 1, "", text});
  beta.keys = 42;
  const std::string whole = status_json(daemon_.inputs, kWhole);
  EXPECT_LE(whole.size(), kReplyMax);
  EXPECT_FALSE(source("beta").contains("findings"));
  EXPECT_TRUE(source("beta").contains("left_out"));
  EXPECT_EQ(source("beta").at("keys"), 42) << "counters always fit";
}

}  // namespace
}  // namespace latchkey
