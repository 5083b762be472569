// Sources as status, readiness and the service manager see them.
#include "daemon/observe/status.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <set>
#include <string>
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
using testing::IsEmpty;

TEST(SourceViews, FollowTheConfigurationAndOmitSourcesWithoutALoader) {
  test::ObservedDaemon daemon;
  std::vector<std::pair<std::size_t, std::string>> views;
  for (const SourceView& view : source_views(daemon.inputs)) {
    views.emplace_back(view.number, view.loader->database + "." + view.status->name);
    EXPECT_EQ(view.route->keys->name, view.status->name);
  }
  EXPECT_EQ(views, (std::vector<std::pair<std::size_t, std::string>>{
                       {0, "first_db.alpha"}, {1, "second_db.beta"}, {2, "second_db.gamma"}}));
  daemon.second_db().sources.pop_back();
  const auto fewer = source_views(daemon.inputs);
  ASSERT_EQ(fewer.size(), 2U);
  EXPECT_EQ(fewer[1].number, 2U) << "the route of gamma, whose counters it has";
  daemon.inputs.loaders.clear();
  EXPECT_THAT(source_views(daemon.inputs), IsEmpty());
}

TEST(StandingText, GivesStateAndSeconds) {
  test::ObservedDaemon daemon;
  std::vector<std::string> texts;
  for (const SourceView& view : source_views(daemon.inputs)) texts.push_back(standing_text(view));
  EXPECT_THAT(texts,
              ElementsAre("alpha fresh for 90 s", "beta stale for 7 s", "gamma loading for 7 s"));
  daemon.inputs.now_boot_ns += kS - 1;
  EXPECT_EQ(standing_text(source_views(daemon.inputs)[0]), "alpha fresh for 90 s");
  daemon.inputs.now_boot_ns += 1;
  EXPECT_EQ(standing_text(source_views(daemon.inputs)[0]), "alpha fresh for 91 s");
}

TEST(UnansweredSources, AreThoseWhoseAnswersAreRefusedForTheirAge) {
  test::ObservedDaemon daemon;
  EXPECT_THAT(unanswered_sources(daemon.inputs), ElementsAre("gamma loading for 7 s"));
  daemon.gamma.freshness.prove(kBootNs);
  EXPECT_THAT(unanswered_sources(daemon.inputs), IsEmpty());
  daemon.beta.freshness.prove(kBootNs - test::kLimits.max_stale_ns);
  EXPECT_THAT(unanswered_sources(daemon.inputs), IsEmpty()) << "the limit is an age that answers";
  daemon.inputs.now_boot_ns += kMs;
  EXPECT_THAT(unanswered_sources(daemon.inputs), ElementsAre("beta unavailable for 0 s"));
}

// Each source is either answered for or listed, as the verifier decides at the same instant.
TEST(UnansweredSources, AgreeWithTheVerifier) {
  test::Random random;
  test::ObservedDaemon daemon;
  for (int round = 0; round < 2'000; ++round) {
    std::set<std::string> refused;
    for (KeySet* keys : {&daemon.alpha, &daemon.beta, &daemon.gamma}) {
      if (random.below(8) == 0) {
        keys->freshness.forget();
      } else {
        const std::int64_t near = static_cast<std::int64_t>(random.below(3)) - 1;
        const std::int64_t ages[] = {0, 5 * kS, 60 * kS, 3600 * kS};
        keys->freshness.prove(kBootNs - ages[random.below(4)] + near);
      }
    }
    for (const std::string& text : unanswered_sources(daemon.inputs)) {
      refused.insert(text.substr(0, text.find(' ')));
    }
    for (std::size_t route = 0; route < 3; ++route) {
      Terms terms;
      terms.sources = SourceMask{1} << route;
      const Question question{"some key", &terms};
      Outcome outcome;
      daemon.policy.verifier.verify({&question, 1}, {test::kRealUs, kBootNs}, {&outcome, 1});
      const std::string& name = daemon.policy.verifier.routes()[route].keys->name;
      EXPECT_EQ(outcome.verdict == LATCHKEY_UNAVAILABLE, refused.contains(name)) << name;
    }
  }
}

}  // namespace
}  // namespace latchkey
