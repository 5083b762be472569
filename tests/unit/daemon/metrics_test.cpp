// The facts of a daemon in Prometheus' text format, for trusted readers and for any reader.
#include "daemon/observe/metrics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cctype>
#include <cmath>
#include <limits>
#include <map>
#include <set>
#include <sstream>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "tests/unit/support/helpers.h"
#include "tests/unit/support/observed_daemon.h"

namespace latchkey {
namespace {

using test::kBootNs;
using test::kS;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
using testing::UnorderedElementsAre;

constexpr MetricsReaders kAllReaders[] = {MetricsReaders::kAnybody, MetricsReaders::kTrusted};

struct Family {
  std::string help, type;
  std::map<std::string, double> samples;  // by name and labels, as in the text
};
using Families = std::map<std::string, Family>;

// The family of a sample: a histogram has three names of samples.
std::string family_of(const std::string& sample, const Families& families) {
  const std::string name = sample.substr(0, sample.find('{'));
  if (families.contains(name)) return name;
  for (const char* part : {"_bucket", "_sum", "_count"}) {
    if (!name.ends_with(part)) continue;
    const std::string base = name.substr(0, name.size() - std::string_view(part).size());
    if (families.contains(base) && families.at(base).type == "histogram") return base;
  }
  throw std::runtime_error("no family of " + sample);
}

// prometheus.io/docs/instrumenting/exposition_formats. Throws std::runtime_error for other text.
Families parse(const std::string& text) {
  Families families;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    const bool help = line.starts_with("# HELP "), type = line.starts_with("# TYPE ");
    if (help || type) {
      const std::string rest = line.substr(7);
      const std::string name = rest.substr(0, rest.find(' '));
      std::string& part = help ? families[name].help : families[name].type;
      if (!part.empty()) throw std::runtime_error("twice: " + line);
      part = rest.substr(name.size() + 1);
      continue;
    }
    const std::size_t space = line.rfind(' ');
    if (space == line.npos) throw std::runtime_error("no sample: " + line);
    const std::string sample = line.substr(0, space);
    std::size_t end = 0;
    const double value = std::stod(line.substr(space + 1), &end);
    if (space + 1 + end != line.size()) throw std::runtime_error("no number: " + line);
    Family& family = families.at(family_of(sample, families));
    if (!family.samples.emplace(sample, value).second) {
      throw std::runtime_error("twice: " + line);
    }
  }
  return families;
}

class MetricsTest : public testing::Test {
 protected:
  MetricsTest() {
    Admission::Caller caller;
    caller.connections = 3;
    caller.waiting_bytes = 70;
    caller.unknown = 9;
    daemon_.inputs.callers = {{1001, caller}, {1002, caller}};
  }

  std::string text(MetricsReaders readers = MetricsReaders::kTrusted) const {
    return metrics_text(daemon_.inputs, facts_, readers);
  }
  Families families(MetricsReaders readers = MetricsReaders::kTrusted) const {
    return parse(text(readers));
  }
  // The value of a sample as it is written in the text; NaN if there is none.
  double value(const std::string& sample) const {
    const Families all = families();
    const Family& family = all.at(family_of(sample, all));
    const auto found = family.samples.find(sample);
    return found != family.samples.end() ? found->second : std::numeric_limits<double>::quiet_NaN();
  }
  std::size_t samples(const std::string& family) const {
    return families().at(family).samples.size();
  }

  test::ObservedDaemon daemon_;
  ProcessFacts facts_{.resident_bytes = 1e6,
                      .cpu_seconds = 2.5,
                      .open_fds = 12,
                      .max_fds = 1024,
                      .started_unix_s = 1.7e9};
};

// ---- the format

TEST_F(MetricsTest, HaveHelpATypeAndSamples) {
  for (const MetricsReaders readers : kAllReaders) {
    for (const auto& [name, family] : families(readers)) {
      EXPECT_FALSE(family.help.empty()) << name;
      EXPECT_THAT(family.type, testing::AnyOf("counter", "gauge", "histogram")) << name;
      const bool optional = name == "latchkey_notification_queue_ratio" ||
                            name == "latchkey_source_unseen_seconds" ||
                            name.starts_with("latchkey_last_used_");
      EXPECT_EQ(family.samples.empty(), optional) << name;
    }
  }
}

// prometheus.io/docs/practices/naming: base units, in the plural, at the end; counters end in
// _total.
TEST_F(MetricsTest, HaveNamesWithUnits) {
  for (const auto& [name, family] : families()) {
    EXPECT_TRUE(name.starts_with("latchkey_") || name.starts_with("process_")) << name;
    EXPECT_TRUE(std::ranges::all_of(name, [](char c) { return std::islower(c) || c == '_'; }))
        << name;
    EXPECT_EQ(name.ends_with("_total"), family.type == "counter") << name;
    const std::string base = name.substr(0, name.size() - (name.ends_with("_total") ? 6 : 0));
    for (const char* unit : {"_ms", "_us", "_ns", "_millis", "_milliseconds", "_minutes", "_s",
                             "_kb", "_mb", "_percent", "_second", "_byte"}) {
      EXPECT_FALSE(base.ends_with(unit)) << name;
    }
    for (const char* unit : {"_seconds", "_bytes", "_ratio"}) {
      EXPECT_EQ(base.find(unit) != base.npos, base.ends_with(unit)) << name;
    }
    EXPECT_TRUE(name.ends_with("_seconds") || family.type != "histogram") << name;
  }
}

TEST_F(MetricsTest, AreTheSameTextForTheSameFacts) {
  for (const MetricsReaders readers : kAllReaders) EXPECT_EQ(text(readers), text(readers));
  EXPECT_NE(text(MetricsReaders::kAnybody), text(MetricsReaders::kTrusted));
}

TEST_F(MetricsTest, KeepHostileNamesWithinTheirLine) {
  const std::string hostile = "a\"b\\c\n# HELP evil\x1b[m{}\xff} 1";
  daemon_.first_db().database = hostile;
  const Families all = families();
  EXPECT_FALSE(all.contains("evil"));
  const auto& up = all.at("latchkey_database_up").samples;
  EXPECT_EQ(up.size(), 2U);
  for (const auto& [sample, value] : up) {
    EXPECT_THAT(sample, Not(HasSubstr("\x1b")));
    EXPECT_THAT(sample, Not(HasSubstr("\xff")));
  }
  EXPECT_EQ(value("latchkey_database_up{database=\"a\\\"b\\\\c?# HELP evil?[m{}?} 1\"}"), 1);
}

// ---- readers

TEST_F(MetricsTest, GiveTrustedReadersMoreFamilies) {
  std::vector<std::string> more;
  const Families anybody = families(MetricsReaders::kAnybody);
  const Families trusted = families(MetricsReaders::kTrusted);
  for (const auto& [name, family] : trusted) {
    const auto same = anybody.find(name);
    if (same == anybody.end()) {
      more.push_back(name);
    } else {
      EXPECT_EQ(same->second.samples, family.samples) << name;
    }
  }
  EXPECT_THAT(more,
              UnorderedElementsAre("latchkey_verdicts_total", "latchkey_accepted_by_secret_total",
                                   "latchkey_caller_unknown_keys_total"));
  EXPECT_EQ(anybody.size() + more.size(), trusted.size());
}

TEST_F(MetricsTest, TellAnyReaderNothingOfReasonsSourcesAndCallersOfAnswers) {
  const std::string anybody = text(MetricsReaders::kAnybody), trusted = text();
  test::find_other_reasons(daemon_);
  EXPECT_EQ(text(MetricsReaders::kAnybody), anybody);
  EXPECT_NE(text(), trusted);
}

TEST_F(MetricsTest, TellAnyReaderNoDifferenceBetweenRefusals) {
  const std::size_t refusals[] = {
      LATCHKEY_UNKNOWN,   LATCHKEY_MALFORMED,     LATCHKEY_REVOKED,
      LATCHKEY_DISABLED,  LATCHKEY_DELETED,       LATCHKEY_EXPIRED,
      LATCHKEY_FORBIDDEN, LATCHKEY_NOT_YET_VALID, LATCHKEY_INSUFFICIENT_SCOPE};
  std::set<std::string> texts;
  for (const std::size_t verdict : refusals) {
    test::ObservedDaemon daemon;
    daemon.workers[0].told[verdict].add();
    texts.insert(metrics_text(daemon.inputs, facts_, MetricsReaders::kAnybody));
  }
  EXPECT_EQ(texts.size(), 1U);
}

// ---- values

TEST_F(MetricsTest, TellOfTheProcess) {
  EXPECT_EQ(value("process_resident_memory_bytes"), 1e6);
  EXPECT_EQ(value("process_cpu_seconds_total"), 2.5);
  EXPECT_EQ(value("process_open_fds"), 12);
  EXPECT_EQ(value("process_max_fds"), 1024);
  EXPECT_EQ(value("process_start_time_seconds"), 1.7e9);
  EXPECT_EQ(value("latchkey_build_info{version=\"" LATCHKEY_VERSION_TEXT "\"}"), 1);
  EXPECT_EQ(value("latchkey_workers"), 2);
}

TEST_F(MetricsTest, ShowFailedReloads) {
  EXPECT_EQ(value("latchkey_last_reload_successful"), 1);
  daemon_.inputs.reload.succeeded = 4;
  daemon_.inputs.reload.failed = 2;
  daemon_.inputs.reload.last_error = "line 3";
  EXPECT_EQ(value("latchkey_last_reload_successful"), 0);
  EXPECT_EQ(value("latchkey_reloads_total{result=\"succeeded\"}"), 4);
  EXPECT_EQ(value("latchkey_reloads_total{result=\"failed\"}"), 2);
  daemon_.inputs.reload.last_error.clear();
  EXPECT_EQ(value("latchkey_last_reload_successful"), 1) << "the latest one counts";
}

TEST_F(MetricsTest, ShowAMissingSocketAndLostLines) {
  EXPECT_EQ(value("latchkey_socket_in_place"), 1);
  daemon_.inputs.socket_in_place = false;
  daemon_.inputs.log_lines_dropped = 8;
  EXPECT_EQ(value("latchkey_socket_in_place"), 0);
  EXPECT_EQ(value("latchkey_log_lines_dropped_total"), 8);
}

TEST_F(MetricsTest, CountConnections) {
  daemon_.workers[0].connections_opened.add(10);
  daemon_.workers[1].connections_closed.add(4);
  daemon_.workers[0].closed_idle.add(1);
  daemon_.workers[1].closed_stalled.add(2);
  daemon_.workers[1].closed_hoarding.add(3);
  daemon_.accepts.accepted.add(11);
  daemon_.accepts.refused_not_allowed.add(12);
  daemon_.accepts.refused_overloaded.add(13);
  daemon_.accepts.refused_uid_limit.add(14);
  daemon_.accepts.refused_no_descriptors.add(15);
  daemon_.accepts.accept_errors.add(16);
  EXPECT_EQ(value("latchkey_connections"), 6);
  EXPECT_EQ(value("latchkey_connections_max"), 4000);
  EXPECT_EQ(value("latchkey_connections_ended_total{reason=\"idle\"}"), 1);
  EXPECT_EQ(value("latchkey_connections_ended_total{reason=\"stalled\"}"), 2);
  EXPECT_EQ(value("latchkey_connections_ended_total{reason=\"hoarding\"}"), 3);
  EXPECT_EQ(value("latchkey_connections_accepted_total"), 11);
  EXPECT_EQ(value("latchkey_connections_refused_total{reason=\"not_allowed\"}"), 12);
  EXPECT_EQ(value("latchkey_connections_refused_total{reason=\"overloaded\"}"), 13);
  EXPECT_EQ(value("latchkey_connections_refused_total{reason=\"uid_limit\"}"), 14);
  EXPECT_EQ(value("latchkey_connections_refused_total{reason=\"no_descriptors\"}"), 15);
  EXPECT_EQ(value("latchkey_accept_errors_total"), 16);
  EXPECT_EQ(value("latchkey_caller_connections{uid=\"1002\"}"), 3);
  EXPECT_EQ(value("latchkey_caller_unknown_keys_total{uid=\"1001\"}"), 9);
  EXPECT_EQ(value("latchkey_waiting_reply_bytes"), 140);
  daemon_.workers[1].connections_closed.add(100);
  EXPECT_EQ(value("latchkey_connections"), 0) << "read between two counters, never negative";
}

TEST_F(MetricsTest, CountAnswersByOutcomeAsTold) {
  for (std::size_t v = 0; v < LATCHKEY_VERDICTS; ++v) {
    daemon_.workers[0].told[v].add(1);
    daemon_.workers[1].told[v].add(1);
    daemon_.workers[1].verdicts[v].add(500);
  }
  EXPECT_EQ(value("latchkey_answers_total{outcome=\"active\"}"), 2);
  EXPECT_EQ(value("latchkey_answers_total{outcome=\"unavailable\"}"), 2);
  EXPECT_EQ(value("latchkey_answers_total{outcome=\"inactive\"}"), 2 * (LATCHKEY_VERDICTS - 2));
}

TEST_F(MetricsTest, CountVerdictsBySourceAndPepper) {
  daemon_.workers[0].verdicts_by_source[1][LATCHKEY_REVOKED].add(2);
  daemon_.workers[1].verdicts_by_source[1][LATCHKEY_REVOKED].add(3);
  daemon_.workers[1].verdicts_by_source[VerdictStats::kNoSource][LATCHKEY_UNKNOWN].add(7);
  daemon_.workers[0].accepted_by_pepper[5].add(1);
  daemon_.workers[1].accepted_by_pepper[3].add(4);
  EXPECT_EQ(value("latchkey_verdicts_total{source=\"beta\",verdict=\"revoked\"}"), 5);
  EXPECT_EQ(value("latchkey_verdicts_total{source=\"alpha\",verdict=\"revoked\"}"), 0);
  EXPECT_EQ(value("latchkey_verdicts_total{source=\"\",verdict=\"unknown\"}"), 7);
  EXPECT_EQ(samples("latchkey_verdicts_total"), std::size_t{4} * LATCHKEY_VERDICTS);
  EXPECT_EQ(value("latchkey_accepted_by_secret_total{source=\"beta\",secret=\"v1.key\"}"), 1);
  EXPECT_EQ(value("latchkey_accepted_by_secret_total{source=\"beta\",secret=\"v2.key\"}"), 4);
  EXPECT_EQ(samples("latchkey_accepted_by_secret_total"), 2U);
}

TEST_F(MetricsTest, HaveHistogramsThatAddUp) {
  test::Random random;
  double sum = 0;
  constexpr int kTimes = 500;
  for (int i = 0; i < kTimes; ++i) {
    const auto ns = static_cast<std::int64_t>(random.bits() >> (24 + random.below(30)));
    daemon_.workers[random.below(2)].answered_in.add(ns);
    sum += static_cast<double>(ns) / 1e9;
  }
  const Families all = families();
  std::map<double, double> buckets;
  for (const auto& [sample, count] : all.at("latchkey_answer_duration_seconds").samples) {
    const std::size_t bound = sample.find("le=\"");
    if (bound == sample.npos) continue;
    buckets[std::stod(sample.substr(bound + 4))] = count;  // "+Inf" too
  }
  ASSERT_EQ(buckets.size(), kHistogramBoundsNs.size() + 1);
  double before = 0;
  for (const auto& [bound, count] : buckets) {
    EXPECT_GE(count, before) << "cumulative";
    before = count;
  }
  EXPECT_TRUE(std::isinf(buckets.rbegin()->first));
  EXPECT_EQ(buckets.rbegin()->second, kTimes);
  EXPECT_EQ(buckets.begin()->first, 1e-5);
  EXPECT_EQ(value("latchkey_answer_duration_seconds_count"), kTimes);
  EXPECT_NEAR(value("latchkey_answer_duration_seconds_sum"), sum, 1e-6 * sum);
}

TEST_F(MetricsTest, TellOfDatabases) {
  daemon_.second_db().state = Refresh::State::kLost;
  daemon_.second_db().queue_usage = 0.25;
  daemon_.second_db().barrier_us = 1500;
  daemon_.second_db().stalled_readers = {"worker 0", "worker 1"};
  EXPECT_EQ(value("latchkey_database_up{database=\"first_db\"}"), 1);
  EXPECT_EQ(value("latchkey_database_up{database=\"second_db\"}"), 0);
  EXPECT_EQ(value("latchkey_notification_queue_ratio{database=\"second_db\"}"), 0.25);
  EXPECT_EQ(samples("latchkey_notification_queue_ratio"), 1U) << "absent where it is not known";
  EXPECT_DOUBLE_EQ(value("latchkey_heartbeat_duration_seconds{database=\"second_db\"}"), 0.0015);
  EXPECT_EQ(value("latchkey_stalled_workers{database=\"second_db\"}"), 2);
}

TEST_F(MetricsTest, TellHowSourcesStand) {
  EXPECT_EQ(value("latchkey_freshness_age_seconds{source=\"alpha\"}"), 2);
  EXPECT_EQ(value("latchkey_freshness_age_seconds{source=\"beta\"}"), 30);
  EXPECT_EQ(samples("latchkey_freshness_age_seconds"), 2U) << "gamma was never loaded";
  EXPECT_EQ(value("latchkey_freshness_bound_seconds"), 5);
  EXPECT_EQ(value("latchkey_max_stale_seconds"), 60);
  EXPECT_EQ(value("latchkey_source_state{source=\"alpha\",state=\"fresh\"}"), 1);
  EXPECT_EQ(value("latchkey_source_state{source=\"beta\",state=\"stale\"}"), 1);
  EXPECT_EQ(value("latchkey_source_state{source=\"gamma\",state=\"loading\"}"), 1);
  double states = 0;
  const Families all = families();
  for (const auto& [sample, one] : all.at("latchkey_source_state").samples) states += one;
  EXPECT_EQ(states, 3) << "each source is in one state";
}

TEST_F(MetricsTest, TellOfLoadsAndAudits) {
  SourceStatus& beta = daemon_.beta_status();
  beta.keys = 10;
  beta.ambiguous = 1;
  beta.loads_by_reason[static_cast<std::size_t>(LoadReason::kManyIds)] = 2;
  beta.audits = 5;
  beta.audit_mismatches = 2;
  beta.audits_unsure = 1;
  beta.audits_failed = 4;
  beta.seen_boot_ns = kBootNs - 8 * kS;
  beta.suspended = true;
  beta.problems = {{Lint::kTableMissing, 0, "", ""}};
  beta.findings = {{Lint::kShortKey, 7, "", ""}, {Lint::kKeyNotUnique, 7, "", ""}};
  beta.last_used = LastUsedCounts{.written = 3, .dropped = 2};
  EXPECT_EQ(value("latchkey_keys{source=\"beta\"}"), 10);
  EXPECT_EQ(value("latchkey_ambiguous_keys{source=\"beta\"}"), 1);
  const std::string reason = load_reason_name(LoadReason::kManyIds);
  EXPECT_EQ(value("latchkey_loads_total{source=\"beta\",reason=\"" + reason + "\"}"), 2);
  EXPECT_EQ(value("latchkey_audits_total{source=\"beta\",outcome=\"agreed\"}"), 3);
  EXPECT_EQ(value("latchkey_audits_total{source=\"beta\",outcome=\"mismatch\"}"), 2);
  EXPECT_EQ(value("latchkey_audits_total{source=\"beta\",outcome=\"unsure\"}"), 1);
  EXPECT_EQ(value("latchkey_audits_total{source=\"beta\",outcome=\"failed\"}"), 4);
  EXPECT_EQ(value("latchkey_source_unseen_seconds{source=\"beta\"}"), 8);
  EXPECT_EQ(samples("latchkey_source_unseen_seconds"), 1U);
  EXPECT_EQ(value("latchkey_source_suspended{source=\"beta\"}"), 1);
  EXPECT_EQ(value("latchkey_source_suspended{source=\"alpha\"}"), 0);
  double findings = 0;
  const Families all = families();
  for (const auto& [sample, count] : all.at("latchkey_findings").samples) findings += count;
  EXPECT_EQ(findings, 3);
  EXPECT_EQ(value("latchkey_findings{source=\"beta\",severity=\"error\"}"), 1);
  EXPECT_EQ(value("latchkey_last_used_written_total{source=\"beta\"}"), 3);
  EXPECT_EQ(value("latchkey_last_used_dropped_total{source=\"beta\"}"), 2);
}

TEST(ProcessFactsTest, AreThoseOfThisProcess) {
  const ProcessFacts facts = read_process_facts();
  EXPECT_GT(facts.resident_bytes, 1e5);
  EXPECT_GT(facts.cpu_seconds, 0);
  EXPECT_GE(facts.open_fds, 3);
  EXPECT_GE(facts.max_fds, facts.open_fds);
}

}  // namespace
}  // namespace latchkey
