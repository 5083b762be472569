// A bad configuration: the message has the place, the mistake and the remedy, and no password.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "config/options.h"
#include "loader/postgres/connection.h"
#include "tests/unit/support/options_text.h"

namespace latchkey {
namespace {

using test::database_with;
using test::kDatabase;
using test::kMinimal;
using test::kSource;
using test::parse;
using testing::HasSubstr;
using testing::Not;

struct BadFile {
  const char* name;
  std::string text;
  int line;
  std::vector<std::string> says;  // the setting's name, and the remedy
};

void PrintTo(const BadFile& file, std::ostream* out) { *out << file.name; }

std::string source_with(const std::string& line) { return kMinimal + line + "\n"; }  // line 10
std::string jwt_source(const std::string& lines) {
  return kDatabase +
         "[[source]]\nname = \"s\"\ntable = \"a.b\"\nscheme = \"jwt-hs256\"\n"
         "id = \"id\"\nkey = \"jti\"\n" +
         lines + "\n";  // line 10
}
std::string after(const std::string& lines) { return kMinimal + lines + "\n"; }  // line 10

const std::vector<BadFile> kBadFiles = {
    {"not_toml", "[listen\nsocket = 1\n", 1, {"not valid TOML"}},
    {"twice", after("[log]\nlevel = \"info\"\nlevel = \"info\""), 12, {"not valid TOML", "level"}},
    {"mode_unquoted", after("[listen]\nmode = 0660"), 11, {"not valid TOML"}},

    // unknown keys
    {"unknown_section", after("[freshnes]\nbound = \"5s\""), 10, {"`freshnes`", "`freshness`"}},
    {"unknown_key", after("[listen]\nsockets = \"/x\""), 11, {"[listen]", "`sockets`", "`socket`"}},
    {"unknown_far", after("[listen]\nfrobnicate = 1"), 11, {"`frobnicate`", "group, mode, socket"}},
    {"unknown_role", source_with("expire_at = \"x\""), 10, {"`expire_at`", "`expires_at`"}},
    {"unknown_allow", after("[[allow]]\nuid = 1\nreason = true"), 12, {"`reason`", "`reasons`"}},
    {"unknown_preset_setting",
     kDatabase + "[[source]]\nname = \"s\"\nprest = \"api_keys\"\n",
     6,
     {"no setting `prest`", "`preset`"}},
    {"unknown_conninfo",
     "[[database]]\nname = \"d\"\nconinfo = \"dbname=app\"\n",
     3,
     {"no setting `coninfo`", "`conninfo`"}},
    {"unknown_before_missing_section",
     "[[databases]]\nname = \"d\"\n",
     1,
     {"no setting `databases`", "`database`"}},
    {"unknown_case", after("[Listen]"), 10, {"`Listen`", "`listen`"}},

    // the last use
    {"flush_short", after("[last_used]\nflush = \"999ms\""), 11, {"`flush`", "1000ms"}},
    {"flush_long", after("[last_used]\nflush = \"11m\""), 11, {"`flush`", "10m"}},
    {"last_used_is_id", source_with("last_used_at = \"id\""), 10, {"`last_used_at`", "`id`"}},
    {"last_used_is_key", source_with("last_used_at = \"hash\""), 10, {"`last_used_at`", "`key`"}},
    {"last_used_is_read",
     kMinimal + "last_used_at = \"used\"\n[[source]]\nname = \"t\"\ntable = \"public.keys\"\n"
                "scheme = \"sha256\"\nid = \"id\"\nkey = \"hash\"\nexpires_at = \"used\"\n",
     4,
     {"`last_used_at`", "\"used\"", "another source"}},

    // wrong types
    {"socket_number", after("[listen]\nsocket = 7"), 11, {"`socket`", "must be a string"}},
    {"mode_number", after("[listen]\nmode = 660"), 11, {"`mode`", "string"}},
    {"workers_text", after("[listen]\nworkers = \"2\""), 11, {"`workers`", "whole number"}},
    {"workers_float", after("[listen]\nworkers = 2.0"), 11, {"`workers`", "whole number"}},
    {"flag_text",
     after("[[allow]]\nuid = 1\nreasons = \"yes\""),
     12,
     {"`reasons`", "true or false"}},
    {"flag_number", after("[[allow]]\nuid = 1\nmetadata = 1"), 12, {"`metadata`", "true or false"}},
    {"list_text",
     after("[[allow]]\nuid = 1\nsources = \"s\""),
     12,
     {"`sources`", "list of strings"}},
    {"list_mixed",
     source_with("status_active = [\"a\", 1]"),
     10,
     {"`status_active`", "list of str"}},
    {"section_number", "listen = 7\n" + kMinimal, 1, {"`listen`", "[listen]"}},
    {"single_bracket", kDatabase + "[source]\nname = \"s\"", 4, {"`source`", "[[source]]"}},
    {"tables_of_numbers", "allow = [1]\n" + kMinimal, 1, {"`allow`", "[[allow]]"}},
    {"column_number", source_with("tenant = 7"), 10, {"`tenant`", "string"}},
    {"column_true", source_with("tenant = true"), 10, {"`tenant`", "string"}},
    {"key_of_several",
     source_with("subject = [\"a\", \"b\"]"),
     10,
     {"`subject` is one column", "GENERATED"}},

    // durations
    {"duration_number", after("[freshness]\nbound = 5"), 11, {"`bound`", "string"}},
    {"duration_bare",
     after("[freshness]\nbound = \"5\""),
     11,
     {"`bound`", "no duration", "\"5s\""}},
    {"duration_unit",
     after("[freshness]\naudit = \"5 weeks\""),
     11,
     {"`audit`", "number and a unit"}},
    {"duration_negative", after("[freshness]\nbound = \"-5s\""), 11, {"`bound`", "no duration"}},
    {"duration_empty", after("[freshness]\nbound = \"\""), 11, {"`bound`", "empty"}},
    {"heartbeat_short", after("[freshness]\nheartbeat = \"1ms\""), 11, {"`heartbeat`", "10ms"}},
    {"idle_short", after("[limits]\nidle_timeout = \"1ms\""), 11, {"`idle_timeout`", "100ms"}},
    {"bound_short",
     after("[freshness]\nheartbeat = \"3s\"\nbound = \"5s\""),
     10,
     {"[freshness]", "`bound`", "twice `heartbeat`"}},
    {"bound_short_of_default", after("[freshness]\nheartbeat = \"3s\""), 10, {"twice `heartbeat`"}},
    {"stale_before_bound",
     after("[freshness]\nmax_stale = \"4s\""),
     10,
     {"`max_stale`", "shorter than `bound`"}},

    // [listen]
    {"socket_relative",
     after("[listen]\nsocket = \"latchkey.sock\""),
     11,
     {"`socket`", "absolute"}},
    {"socket_long",
     after("[listen]\nsocket = \"/" + std::string(107, 'x') + "\""),
     11,
     {"`socket`", "107 bytes"}},
    {"mode_text", after("[listen]\nmode = \"rw-rw----\""), 11, {"`mode`", "\"0660\""}},
    {"mode_digits", after("[listen]\nmode = \"0888\""), 11, {"`mode`", "octal"}},
    {"mode_large", after("[listen]\nmode = \"1777\""), 11, {"`mode`", "octal"}},
    {"mode_negative", after("[listen]\nmode = \"-1\""), 11, {"`mode`", "octal"}},
    {"mode_sign", after("[listen]\nmode = \" +660\""), 11, {"`mode`", "octal"}},
    {"group_unknown",
     after("[listen]\ngroup = \"no such group\""),
     11,
     {"no group", "on this host"}},
    {"workers_many", after("[listen]\nworkers = 33"), 11, {"`workers`", "1 to 32"}},
    {"workers_none", after("[listen]\nworkers = 0"), 11, {"`workers`", "1 to 32"}},
    {"connections", after("[limits]\nconnections = 0"), 11, {"`connections`", "1 to 1000000"}},
    {"log_level", after("[log]\nlevel = \"verbose\""), 11, {"`level`", "debug, error, info"}},

    // [[database]]
    {"conninfo_missing",
     "[[database]]\nname = \"main\"\n" + kSource,
     1,
     {"`conninfo`", "dbname=app"}},
    {"conninfo_bad", database_with("conninfo = \"hots=/run\""), 3, {"`conninfo`", "hots"}},
    {"conninfo_password",
     database_with("conninfo = \"user=u password=p\""),
     3,
     {"password", "`password_file`"}},
    {"conninfo_url",
     database_with("conninfo = \"postgresql://u:p@host/db\""),
     3,
     {"password", "`password_file`"}},
    {"database_nameless",
     "[[database]]\nconninfo = \"dbname=a\"\n" + kSource,
     1,
     {"`name`", "name = \"main\""}},
    {"database_name",
     "[[database]]\nname = \"a b\"\nconninfo = \"dbname=a\"\n" + kSource,
     2,
     {"`name`", "63 characters"}},
    {"database_twice", kDatabase + kDatabase + kSource, 4, {"two databases", "\"main\""}},
    {"database_unused",
     kDatabase + "[[database]]\nname = \"idle\"\nconninfo = \"dbname=b\"\n" + kSource +
         "database = \"main\"\n",
     4,
     {"\"idle\"", "Remove it"}},
    {"database_none", kSource, 1, {"[[database]]"}},
    {"role_breaks_out",
     database_with("conninfo = \"dbname=a\"\nrole = \"x$latchkey$; DROP\""),
     4,
     {"`role`"}},

    // [[source]]
    {"source_none", kDatabase, 1, {"[[source]]"}},
    {"source_twice", kMinimal + kSource, 10, {"two sources", "\"s\""}},
    {"database_unknown", source_with("database = \"mian\""), 10, {"\"mian\"", "main"}},
    {"database_unsaid",
     kDatabase + "[[database]]\nname = \"b\"\nconninfo = \"dbname=b\"\n" + kSource,
     7,
     {"source \"s\"", "b, main"}},
    {"preset_unknown",
     kDatabase + "[[source]]\nname = \"s\"\npreset = \"apikeys\"\n",
     6,
     {"\"apikeys\"", "`api_keys`"}},
    {"table_missing",
     kDatabase + "[[source]]\nname = \"s\"\nid = \"id\"\nkey = \"k\"\n",
     4,
     {"`table`", "schema.table"}},
    {"table_bare",
     kDatabase + "[[source]]\nname = \"s\"\ntable = \"keys\"\n",
     6,
     {"`table`", "schema.table"}},
    {"id_missing",
     kDatabase + "[[source]]\nname = \"s\"\ntable = \"a.b\"\nkey = \"k\"\n",
     4,
     {"`id`", "identifies a row"}},
    {"key_taken_away",
     kDatabase + "[[source]]\nname = \"s\"\npreset = \"auth_api_key\"\nkey = false\n",
     4,
     {"`key`", "holds the key"}},
    {"scheme",
     source_with("scheme = \"md5\"")
         .replace(kDatabase.size(), kSource.size(), "[[source]]\nname = \"s\"\ntable = \"a.b\"\n"),
     7,
     {"`scheme`", "hmac-sha256, jwt, jwt-hs256, plain"}},
    {"encoding", source_with("encoding = \"utf8\""), 10, {"`encoding`", "base64, hex, raw"}},
    {"hmac_without_peppers",
     kDatabase + "[[source]]\nname = \"s\"\npreset = \"api_keys\"\n",
     4,
     {"`peppers`", "folder"}},
    {"jwt_without_secret",
     kDatabase + "[[source]]\nname = \"s\"\ntable = \"a.b\"\nscheme = \"jwt-hs256\"\n"
                 "id = \"id\"\nkey = \"jti\"\n",
     4,
     {"`jwt_secret_file`", "the secret that they are signed with"}},
    {"jwt_secret_empty", jwt_source("jwt_secret_file = \"\""), 10, {"`jwt_secret_file`", "empty"}},
    {"jwt_secrets_none", jwt_source("jwt_secret_file = []"), 10, {"`jwt_secret_file`", "at least"}},
    {"jwt_secrets_empty",
     jwt_source("jwt_secret_file = [\"a\", \"\"]"),
     10,
     {"`jwt_secret_file`", "empty name"}},
    {"jwt_secrets_twice",
     jwt_source("jwt_secret_file = [\"a\", \"b\", \"a\"]"),
     10,
     {"`jwt_secret_file`", "\"a\" twice"}},
    {"jwt_secrets_mixed",
     jwt_source("jwt_secret_file = [\"a\", 1]"),
     10,
     {"`jwt_secret_file`", "list of strings"}},
    {"jwt_secret_number",
     jwt_source("jwt_secret_file = 7"),
     10,
     {"`jwt_secret_file`", "a string, or a list of strings"}},
    {"jwt_secret_for_whole_tokens",
     kDatabase + "[[source]]\nname = \"s\"\npreset = \"auth_api_key\"\n"
                 "jwt_secret_file = \"secret\"\n",
     7,
     {"`jwt_secret_file`", "jwt-hs256", "the text decides"}},
    {"jwt_secret_for_nothing",
     source_with("jwt_secret_file = \"secret\""),
     10,
     {"`jwt_secret_file`", "jwt-hs256"}},
    {"jwt_encoding",
     jwt_source("jwt_secret_file = \"a\"\nencoding = \"hex\""),
     11,
     {"`encoding`", "jwt-hs256", "a jti"}},
    {"jwt_key_of_a_preset",
     kDatabase + "[[source]]\nname = \"s\"\npreset = \"auth_api_key\"\n"
                 "scheme = \"jwt-hs256\"\njwt_secret_file = \"secret\"\n",
     7,
     {"`key`", "key = \"jti\""}},
    {"peppers_for_nothing", source_with("peppers = \"/p\""), 10, {"`peppers`", "hmac-sha256"}},
    {"column_long", source_with("tenant = \"" + std::string(64, 'c') + "\""), 10, {"`tenant`"}},
    {"column_control", source_with("tenant = \"a\\nb\""), 10, {"`tenant`"}},
    {"column_breaks_out", source_with("tenant = \"x$latchkey$; DROP\""), 10, {"`tenant`"}},
    {"source_name", kDatabase + "[[source]]\nname = \"a/b\"\n", 5, {"`name`", "A-Z a-z 0-9"}},
    // Notifications carry ids, and every role in the database can read them; claims go to callers.
    {"id_is_the_key",
     kDatabase + "[[source]]\nname = \"s\"\ntable = \"a.b\"\nscheme = \"plain\"\n"
                 "id = \"k\"\nkey = \"k\"\n",
     8,
     {"`id`", "`key`"}},
    {"metadata_is_the_key",
     kDatabase + "[[source]]\nname = \"s\"\npreset = \"auth_api_key\"\n"
                 "metadata = \"token\"\n",
     7,
     {"`metadata`", "`key`"}},

    // [[allow]]
    {"allow_nobody", after("[[allow]]\nreasons = true"), 10, {"uid, user, gid or group"}},
    {"allow_odd_operation",
     after("[[allow]]\nuid = 1\noperations = [\"verfy\"]"),
     12,
     {"no operation \"verfy\"", "`verify`"}},
    {"allow_no_operation",
     after("[[allow]]\nuid = 1\noperations = []"),
     12,
     {"`operations` is empty"}},
    {"allow_empty", after("[[allow]]"), 10, {"uid, user, gid or group"}},
    {"allow_negative", after("[[allow]]\nuid = -1"), 11, {"`uid`", "0 to"}},
    {"allow_minus_one", after("[[allow]]\nuid = 4294967295"), 11, {"`uid`", "4294967294"}},
    {"allow_uid_text", after("[[allow]]\nuid = \"root\""), 11, {"`uid`", "whole number"}},
    {"allow_user", after("[[allow]]\nuser = \"no such user\""), 11, {"no user", "on this host"}},
    {"allow_group", after("[[allow]]\ngroup = \"no such group\""), 11, {"no group"}},
    {"allow_twice", after("[[allow]]\nuid = 0\nuser = \"root\""), 12, {"`uid` and `user`"}},
    {"allow_no_source",
     after("[[allow]]\nuid = 1\nsources = []"),
     12,
     {"`sources`", "Leave it out"}},
    {"allow_source", after("[[allow]]\nuid = 1\nsources = [\"t\"]"), 12, {"\"t\"", "`s`"}},
};

class BadOptions : public testing::TestWithParam<BadFile> {};

TEST_P(BadOptions, AreRefusedWithWhereWhatAndWhatInstead) {
  try {
    (void)parse(GetParam().text);
    FAIL() << "accepted:\n" << GetParam().text;
  } catch (const ConfigError& error) {
    const std::string what = error.what();
    // The place: the line itself, or that of its section.
    EXPECT_THAT(what, HasSubstr("latchkey.toml:" + std::to_string(GetParam().line) + ": "))
        << GetParam().text;
    for (const std::string& part : GetParam().says) EXPECT_THAT(what, HasSubstr(part));
    EXPECT_EQ(what.find('\n'), std::string::npos) << "a paragraph";
  }
}

INSTANTIATE_TEST_SUITE_P(Files, BadOptions, testing::ValuesIn(kBadFiles),
                         [](const auto& param) { return std::string(param.param.name); });

TEST(OptionsFile, NeverShowsAPassword) {
  for (const char* conninfo : {"password=hush-hush user=u", "postgresql://u:hush-hush@h/d",
                               "password='hush-hush", "password=hush hush-hush"}) {
    try {
      (void)parse(database_with("conninfo = \"" + std::string(conninfo) + "\""));
      ADD_FAILURE() << conninfo;
    } catch (const ConfigError& error) {
      EXPECT_THAT(error.what(), Not(HasSubstr("hush-hush")));
    }
  }
}

TEST(OptionsFile, SaysWhichFileCannotBeRead) {
  for (const char* path : {"/nowhere/latchkey.toml", "/", "/dev/null"}) {
    try {
      (void)Options::load(path, read_conninfo);
      ADD_FAILURE() << path;
    } catch (const ConfigError& error) {
      EXPECT_THAT(error.what(), HasSubstr(path));
      EXPECT_THAT(error.what(), HasSubstr("--config"));
    }
  }
}

}  // namespace
}  // namespace latchkey
