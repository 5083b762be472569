// A good configuration: the meaning of its settings, their defaults, presets and overrides.
#include "config/options.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "loader/postgres/triggers.h"
#include "tests/unit/support/options_text.h"

namespace latchkey {
namespace {

using namespace std::chrono_literals;
using test::kDatabase;
using test::kMinimal;
using test::kSource;
using test::parse;
using testing::Contains;
using testing::Not;

const std::string kExample = R"([listen]
socket = "/run/latchkey/latchkey.sock"
mode   = "0660"
[freshness]
heartbeat = "1s"      # barrier round trip on the listening session
bound     = "5s"      # an answer older than this is not `fresh`
max_stale = "1h"      # past this the verdict is `unavailable`
audit     = "10m"     # full digest comparison with the table
[[database]]
name = "main"
conninfo = "host=/run/postgresql dbname=app user=latchkey"
password_file = "pgpass"          # relative to $CREDENTIALS_DIRECTORY
[[source]]
name = "api_keys"
database = "main"
preset = "api_keys"               # columns below override the preset
peppers = "/etc/latchkey/peppers" # one file a version: raw *.key, *.hex, *.b64
[[allow]]
uid = 1001                        # or user, gid, group; no rule: only root and the daemon's own uid
sources = ["api_keys"]
reasons = true
metadata = false
)";

TEST(OptionsFile, ReadsTheExampleOfTheContract) {
  const Options options = parse(kExample);
  EXPECT_EQ(options.listen.socket, "/run/latchkey/latchkey.sock");
  EXPECT_EQ(options.listen.mode, 0660U);
  EXPECT_EQ(options.freshness.heartbeat, 1s);
  EXPECT_EQ(options.freshness.bound, 5s);
  EXPECT_EQ(options.freshness.max_stale, 1h);
  EXPECT_EQ(options.freshness.audit, 10min);
  ASSERT_EQ(options.databases.size(), 1U);
  EXPECT_EQ(options.databases[0].name, "main");
  EXPECT_EQ(options.databases[0].conninfo, "host=/run/postgresql dbname=app user=latchkey");
  EXPECT_EQ(options.databases[0].password_file, "pgpass");
  EXPECT_EQ(options.databases[0].role, "latchkey");
  ASSERT_EQ(options.sources.size(), 1U);
  EXPECT_EQ(options.sources[0].name, "api_keys");
  EXPECT_EQ(options.sources[0].database, "main");
  EXPECT_EQ(options.sources[0].table.display(), "public.api_keys");
  EXPECT_EQ(options.sources[0].scheme, Scheme::kHmac);
  EXPECT_EQ(options.sources[0].peppers, "/etc/latchkey/peppers");
  EXPECT_EQ(options.sources[0].columns, preset("api_keys")->columns);
  ASSERT_EQ(options.allow.size(), 1U);
  EXPECT_EQ(options.allow[0].uid, 1001U);
  EXPECT_FALSE(options.allow[0].gid.has_value());
  EXPECT_EQ(options.allow[0].sources, std::vector<std::string>{"api_keys"});
  EXPECT_TRUE(options.allow[0].reasons);
  EXPECT_FALSE(options.allow[0].metadata);
}

TEST(OptionsFile, HasADefaultForAllThatIsNotSaid) {
  const Options options = parse(kMinimal);
  EXPECT_EQ(options.listen.socket, "/run/latchkey/latchkey.sock");
  EXPECT_EQ(options.listen.mode, 0660U);
  EXPECT_EQ(options.listen.workers, 1U);
  EXPECT_EQ(options.freshness.bound, 5s);
  EXPECT_EQ(options.limits.connections, 4096U);
  EXPECT_EQ(options.log_level, "info");
  EXPECT_EQ(options.sources[0].database, "main") << "there is but one";
  EXPECT_EQ(options.sources[0].encoding, Encoding::kRaw);
  EXPECT_EQ(options.databases[0].role, "latchkey");
  EXPECT_TRUE(options.allow.empty());
}

TEST(OptionsFile, MapsAnyTable) {
  const Options options = parse(kDatabase + R"([[source]]
name = "my.keys-2"
table = '"My Schema"."key.table"'
scheme = "hmac-sha256"
encoding = "base64"
peppers = "/p"
id = "key id"
key = "digest"
status = "state"
status_active = ["on", "new"]
status_revoked = []
time_zone = "Europe/Berlin"
[log]
level = "debug"
[limits]
connections = 10
idle_timeout = "90s"
[listen]
workers = 4
)");
  const SourceConfig& source = options.sources.at(0);
  EXPECT_EQ(source.table.schema, "My Schema");
  EXPECT_EQ(source.table.table, "key.table");
  EXPECT_EQ(source.scheme, Scheme::kHmac);
  EXPECT_EQ(source.encoding, Encoding::kBase64);
  EXPECT_EQ(source.columns,
            (std::map<Role, std::string>{
                {Role::kId, "key id"}, {Role::kKey, "digest"}, {Role::kStatus, "state"}}));
  EXPECT_EQ(source.status_active, (std::vector<std::string>{"on", "new"}));
  EXPECT_TRUE(source.status_revoked.empty());
  EXPECT_EQ(source.time_zone, "Europe/Berlin");
  EXPECT_EQ(options.log_level, "debug");
  EXPECT_EQ(options.limits.connections, 10U);
  EXPECT_EQ(options.limits.idle_timeout, 90s);
  EXPECT_EQ(options.listen.workers, 4U);
}

TEST(OptionsFile, NamesOneJwtSecretOrSeveral) {
  const auto files = [](const std::string& value) {
    const Options options = parse(kDatabase +
                                  "[[source]]\nname = \"s\"\npreset = \"auth_api_key\"\n"
                                  "scheme = \"jwt-hs256\"\nkey = \"jti\"\njwt_secret_file = " +
                                  value + "\n");
    EXPECT_EQ(options.sources.at(0).scheme, Scheme::kJwtJti);
    EXPECT_EQ(*options.sources.at(0).column(Role::kKey), "jti");
    return options.sources.at(0).jwt_secret_files;
  };
  EXPECT_EQ(files("\"jwt\""), (std::vector<std::string>{"jwt"}));
  EXPECT_EQ(files("[\"new.b64\", \"/etc/old\"]"),
            (std::vector<std::string>{"new.b64", "/etc/old"}));
}

TEST(OptionsFile, LetsColumnsOverrideAPresetOrTakeThemAway) {
  const auto columns = parse(kDatabase +
                             "[[source]]\nname = \"s\"\npreset = \"external_credentials\"\n"
                             "metadata = \"data\"\nsubject = \"other\"\ndeleted_at = false\n")
                           .sources.at(0)
                           .columns;
  EXPECT_EQ(columns.at(Role::kMetadata), "data");
  EXPECT_EQ(columns.at(Role::kSubject), "other");
  EXPECT_FALSE(columns.contains(Role::kDeletedAt));
}

TEST(OptionsFile, TakesTheRoleFromTheConninfoUnlessItIsSaid) {
  const auto role = [](const std::string& lines) {
    return parse("[[database]]\nname = \"main\"\n" + lines + kSource).databases.at(0).role;
  };
  EXPECT_EQ(role("conninfo = \"user=reader\"\n"), "reader");
  EXPECT_EQ(role("conninfo = \"postgresql://reader@host/db\"\n"), "reader");
  EXPECT_EQ(role("conninfo = \"user=reader\"\nrole = \"other\"\n"), "other");
}

TEST(OptionsFile, WritesTheLastUseOnlyWhereItIsMapped) {
  const Options plain = parse(kMinimal);
  EXPECT_EQ(plain.sources.at(0).column(Role::kLastUsedAt), nullptr);
  EXPECT_EQ(plain.last_used.flush, 5s);
  const Options mapped =
      parse(kMinimal + "last_used_at = \"used\"\n[last_used]\nflush = \"10m\"\n");
  EXPECT_EQ(*mapped.sources.at(0).column(Role::kLastUsedAt), "used");
  EXPECT_EQ(mapped.last_used.flush, 10min);
  EXPECT_THAT(mapped.sources.at(0).watched, Not(Contains("used")))
      << "or we would notify ourselves";
}

TEST(OptionsFile, TakesAtMost32Sources) {
  std::string text = kDatabase;
  for (int i = 0; i < 33; ++i) {
    text += "[[source]]\nname = \"s" + std::to_string(i) + "\"\ntable = \"a.t" + std::to_string(i) +
            "\"\nscheme = \"plain\"\nid = \"id\"\nkey = \"k\"\n";
    if (i == 31) {
      EXPECT_EQ(parse(text).sources.size(), 32U);
    }
  }
  EXPECT_THROW((void)parse(text), ConfigError);
}

// The sources of one table share its triggers: triggers made for one mapping would be outdated for
// the other.
TEST(OptionsFile, LetsSourcesOfOneTableShareItsTriggers) {
  std::string second = kSource;
  second.replace(second.find("\"s\""), 3, "\"t\"");
  const Options options = parse(kMinimal + second + "tenant = \"tenant\"\n");
  // Each source watches the columns of the other, so both print the same triggers.
  EXPECT_THAT(options.sources[0].watched, Contains("tenant"));
  for (const std::string& name : trigger_names()) {
    EXPECT_EQ(trigger_definition(options.sources[0], name),
              trigger_definition(options.sources[1], name));
  }

  second.replace(second.find("id = \"id\""), 9, "id = \"i2\"");
  EXPECT_THROW((void)parse(kMinimal + second), ConfigError) << "ids in notifications are one kind";
}

}  // namespace
}  // namespace latchkey
