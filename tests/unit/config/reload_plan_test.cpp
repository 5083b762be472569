// The settings that a running daemon takes over, and those that it says need a restart.
#include "config/reload_plan.h"
#include "loader/postgres/connection.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace latchkey {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

constexpr const char* kDatabase = R"(
[[database]]
name = "main"
conninfo = "host=/run/postgresql dbname=app user=latchkey"
)";
constexpr const char* kSources = R"(
[[source]]
name = "keys"
preset = "external_credentials"
[[source]]
name = "tokens"
table = "public.tokens"
scheme = "jwt-hs256"
id = "id"
key = "jti"
jwt_secret_file = "/etc/latchkey/secret"
)";

Options options(const std::string& text) {
  return Options::parse(text + kDatabase + kSources, "test.toml", read_conninfo);
}

TEST(ReloadTest, TakesOverWhatItCan) {
  const Options running = options("");
  const Options fresh = options(R"(
[limits]
connections = 10
connections_per_uid = 5
stall_timeout = "1s"
[log]
level = "debug"
[[allow]]
uid = 7
sources = ["keys"]
)");
  const ReloadPlan plan = plan_reload(running, fresh);
  EXPECT_THAT(plan.restart, IsEmpty());
  EXPECT_EQ(plan.options.limits, fresh.limits);
  EXPECT_EQ(plan.options.limits.connections_per_uid, 5U);
  EXPECT_EQ(plan.options.log_level, "debug");
  ASSERT_EQ(plan.options.allow.size(), 1U);
  EXPECT_EQ(plan.options.allow[0].uid, 7U);
}

TEST(ReloadTest, NamesWhatNeedsARestartAndLeavesIt) {
  const Options running = options("");
  const ReloadPlan plan = plan_reload(running, options(R"(
[listen]
socket = "/run/other.sock"
workers = 3
busy_poll = "50us"
[freshness]
bound = "9s"
[last_used]
flush = "9s"
[memory]
lock = false
[limits]
connections = 100
)"));
  EXPECT_THAT(plan.restart, ElementsAre("[listen] socket", "[listen] workers", "[listen] busy_poll",
                                        "[memory] lock", "[freshness] bound", "[last_used] flush"));
  EXPECT_EQ(plan.options.listen, running.listen);
  EXPECT_EQ(plan.options.freshness, running.freshness);
  EXPECT_EQ(plan.options.limits.connections, 100U) << "what can be taken over is";
}

TEST(ReloadTest, NamesSourcesThatChangedCameOrWent) {
  const Options running = options("");
  Options fresh = running;
  fresh.sources[0].columns[Role::kSubject] = "owner";
  fresh.sources[1].name = "renamed";
  EXPECT_THAT(
      plan_reload(running, fresh).restart,
      ElementsAre("[[source]] \"keys\"", "[[source]] \"tokens\"", "[[source]] \"renamed\""));
  fresh = running;
  std::swap(fresh.sources[0], fresh.sources[1]);
  EXPECT_THAT(plan_reload(running, fresh).restart, ElementsAre("the order of [[source]]"));
}

TEST(ReloadTest, ReplacesJwtSecretsButNotWhetherThereAreSome) {
  const Options running = options("");
  Options fresh = running;
  fresh.sources[1].jwt_secret_files = {"/etc/latchkey/new", "/etc/latchkey/secret"};
  const ReloadPlan plan = plan_reload(running, fresh);
  EXPECT_THAT(plan.restart, IsEmpty());
  EXPECT_EQ(plan.options.sources[1].jwt_secret_files, fresh.sources[1].jwt_secret_files);
  fresh.sources[1].jwt_secret_files.clear();
  EXPECT_THAT(plan_reload(running, fresh).restart, ElementsAre("[[source]] \"tokens\""));
}

TEST(ReloadTest, RefusesARuleForASourceThatDoesNotRun) {
  const Options running = options("");
  Options fresh = running;
  fresh.sources[0].name = "other";
  fresh.allow.push_back({.uid = 7, .gid = {}, .sources = {"other"}});
  try {
    (void)plan_reload(running, fresh);
    FAIL();
  } catch (const ConfigError& error) {
    EXPECT_THAT(error.what(), HasSubstr("\"other\", which is new and needs a restart"));
  }
}

}  // namespace
}  // namespace latchkey
