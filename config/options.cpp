#include "config/options.h"

#include <arpa/inet.h>
#include <grp.h>
#include <pwd.h>
#include <sys/un.h>

#include <algorithm>
#include <cctype>
#include <charconv>
#include <fstream>
#include <set>
#include <sstream>

#include "base/printable.h"
#include "config/toml_section.h"
#include "latchkey/wire.h"

namespace latchkey {
namespace {

bool is_name(const std::string& name) {
  return name.size() <= LATCHKEY_SOURCE_BYTES_MAX && std::ranges::all_of(name, [](char c) {
           return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '_' || c == '-' ||
                  c == '.';
         });
}

std::string needed_name(const Section& section, const char* example) {
  std::string name = section.needed_text("name", example);
  if (!is_name(name)) {
    section.refuse("`name` has at most 63 characters out of A-Z a-z 0-9 _ - .",
                   section.find("name"));
  }
  return name;
}

// ---- the sections

bool is_socket_path(const std::string& path) {
  return path.starts_with('/') && path.size() < sizeof(sockaddr_un::sun_path);
}

// Reads the permissions of a Unix socket.
void read_access(const Section& section, mode_t& bits, std::optional<gid_t>& gid) {
  if (const auto mode = section.text("mode")) {
    unsigned octal = 0;
    const char* end = mode->data() + mode->size();
    const auto [rest, error] = std::from_chars(mode->data(), end, octal, 8);
    if (error != std::errc() || rest != end || octal > 0777) {
      section.refuse("`mode` must be octal permissions, such as \"0660\".", section.find("mode"));
    }
    bits = static_cast<mode_t>(octal);
  }
  if (const auto name = section.text("group")) {
    const group* entry = getgrnam(name->c_str());
    if (entry == nullptr) {
      section.refuse("there is no group \"" + *name + "\" on this host.", section.find("group"));
    }
    gid = entry->gr_gid;
  }
}

void read_listen(const Section& section, ListenOptions& listen) {
  if (auto socket = section.text("socket")) {
    if (!is_socket_path(*socket)) {
      section.refuse("`socket` must be an absolute path of at most 107 bytes.",
                     section.find("socket"));
    }
    listen.socket = *socket;
  }
  read_access(section, listen.mode, listen.group);
  if (const auto workers = section.integer("workers", 1, 32)) {
    listen.workers = static_cast<unsigned>(*workers);
  }
  section.duration("busy_poll", listen.busy_poll, std::chrono::milliseconds(0));
  if (listen.busy_poll > std::chrono::milliseconds(10)) {
    section.refuse("`busy_poll` is too long: at most 10ms. It costs a whole processor meanwhile.",
                   section.find("busy_poll"));
  }
}

// nullopt: the text is no IP address (inet_pton(3)).
std::optional<bool> is_loopback(const std::string& host) {
  in_addr v4{};
  if (inet_pton(AF_INET, host.c_str(), &v4) == 1) return (ntohl(v4.s_addr) >> 24) == IN_LOOPBACKNET;
  in6_addr v6{};
  if (inet_pton(AF_INET6, host.c_str(), &v6) == 1) return IN6_IS_ADDR_LOOPBACK(&v6) != 0;
  return std::nullopt;
}

void read_metrics(const Section& section, MetricsOptions& metrics) {
  read_access(section, metrics.mode, metrics.group);
  const auto listen = section.text("listen");
  if (!listen) return;
  if (is_socket_path(*listen)) {
    metrics.socket = *listen;
    return;
  }
  const std::size_t colon = listen->rfind(':');
  const std::string port = colon == std::string::npos ? "" : listen->substr(colon + 1);
  std::string host = listen->substr(0, colon);
  if (host.starts_with('[') && host.ends_with(']')) host = host.substr(1, host.size() - 2);
  const std::optional<bool> loopback = is_loopback(host);
  const char* end = port.data() + port.size();
  const auto [rest, error] = std::from_chars(port.data(), end, metrics.port);
  if (!loopback || error != std::errc() || rest != end) {
    section.refuse(
        "`listen` must be the path of a Unix socket, or a loopback address and a port, such as"
        " \"127.0.0.1:9464\" or \"[::1]:9464\".",
        section.find("listen"));
  }
  if (!*loopback) {
    section.refuse(
        "`listen` must be a loopback address: metrics tell, without asking who wants to"
        " know, who calls how often. Put a proxy that asks in front of it.",
        section.find("listen"));
  }
  metrics.address = host;
}

void read_limits(const Section& section, LimitOptions& limits) {
  using std::chrono::milliseconds;
  if (const auto connections = section.integer("connections", 1, 1'000'000)) {
    limits.connections = static_cast<std::size_t>(*connections);
    limits.connections_per_uid = std::min(limits.connections_per_uid, limits.connections);
  }
  if (const auto connections = section.integer("connections_per_uid", 1, 1'000'000)) {
    limits.connections_per_uid = static_cast<std::size_t>(*connections);
    if (limits.connections_per_uid > limits.connections) {
      section.refuse("`connections_per_uid` is more than `connections`, so it would limit nobody.",
                     section.find("connections_per_uid"));
    }
  }
  // A smaller limit would refuse a single reply of the largest size.
  constexpr std::int64_t kMemoryMin = 4;
  if (const auto mib = section.integer("reply_memory_mib", kMemoryMin, 65536)) {
    limits.reply_memory = static_cast<std::size_t>(*mib) << 20;
  }
  if (const auto keys = section.integer("unknown_keys_logged", 0, 1'000'000'000)) {
    limits.unknown_keys_logged = static_cast<std::uint64_t>(*keys);
  }
  section.duration("idle_timeout", limits.idle_timeout, milliseconds(100));
  section.duration("stall_timeout", limits.stall_timeout, milliseconds(100));
  section.duration("drain_timeout", limits.drain_timeout, milliseconds(0));
}

void read_freshness(const Section& section, FreshnessOptions& freshness) {
  using std::chrono::milliseconds;
  section.duration("heartbeat", freshness.heartbeat, milliseconds(10));
  section.duration("bound", freshness.bound, milliseconds(20));
  section.duration("max_stale", freshness.max_stale, milliseconds(20));
  section.duration("audit", freshness.audit, milliseconds(0));
  if (freshness.audit.count() > 0 && freshness.audit < milliseconds(100)) {
    section.refuse("`audit` must be \"0s\" (never) or at least 100ms: it reads the whole table.",
                   section.find("audit"));
  }
  section.duration("start_timeout", freshness.start_timeout, milliseconds(0));
  if (freshness.bound < 2 * freshness.heartbeat) {
    section.refuse(
        "`bound` must be at least twice `heartbeat`, or answers would fall out of"
        " freshness between two heartbeats.");
  }
  if (freshness.max_stale < freshness.bound) {
    section.refuse(
        "`max_stale` must not be shorter than `bound`: answers are first not fresh, then"
        " unavailable.");
  }
}

void read_last_used(const Section& section, LastUsedOptions& last_used) {
  section.duration("flush", last_used.flush, std::chrono::seconds(1));
  if (last_used.flush > std::chrono::minutes(10)) {
    section.refuse("`flush` is too long: at most 10m.", section.find("flush"));
  }
}

// Names are quoted into SQL; "$latchkey$" would end the quotation of a function's body. Printed SQL
// shows each name unchanged, so a reader would mistake a name with invisible characters for another
// name.
bool is_sql_name(const std::string& name) {
  return name.size() <= 63 && name.find("$latchkey$") == std::string::npos &&
         printable(name) == name;
}

DatabaseOptions read_database(const Section& section, const ReadConninfo& read_conninfo) {
  DatabaseOptions database;
  database.name = needed_name(section, "main");
  database.conninfo =
      section.needed_text("conninfo", "host=/run/postgresql dbname=app user=latchkey");
  const ConninfoFacts facts = read_conninfo(database.conninfo);
  if (facts.problem) {
    // libpq's message quotes the text that it could not parse, which may be part of a password.
    const bool secret = database.conninfo.find("password") != std::string::npos ||
                        (database.conninfo.find("://") != std::string::npos &&
                         facts.problem->find("port") == std::string::npos);
    section.refuse("`conninfo` cannot be read" +
                       (secret ? ", and what is wrong is not shown, because it mentions a password."
                                 " Passwords belong into a file: see `password_file`."
                               : ": " + *facts.problem),
                   section.find("conninfo"));
  }
  if (facts.has_password) {
    section.refuse(
        "`conninfo` holds a password, which everybody who may read this file would see."
        " Put it into a file of its own and name it with `password_file`.",
        section.find("conninfo"));
  }
  if (const auto file = section.text("password_file")) database.password_file = *file;
  database.role = section.text("role").value_or(facts.user.value_or("latchkey"));
  database.allow_superuser = section.flag("allow_superuser");
  if (!is_sql_name(database.role)) {
    section.refuse(
        "`role` (else the user in `conninfo`) must have at most 63 characters, none of them a"
        " control or a format character, which nobody could see.",
        section.find("role"));
  }
  return database;
}

// Advice on common wrong values of a setting.
std::string advice_on(const std::string& text, const std::set<std::string>& known) {
  const auto plainly = [](std::string_view name) {
    std::string letters;
    for (const char c : name) {
      if (c != '-' && c != '_' && c != ' ') letters += static_cast<char>(std::tolower(c));
    }
    return letters;
  };
  const std::string wanted = plainly(text);
  for (const char* slow : {"bcrypt", "scrypt", "argon", "pbkdf"}) {
    if (!wanted.starts_with(slow)) continue;
    return " Slow hashes are for passwords, and cannot be looked up: each presented key would have "
           "to"
           " be tried on each row. Keys of 128 random bits need no more than SHA-256.";
  }
  if (wanted == "base64url") return " `base64` reads that alphabet, too.";
  if (wanted == "bytea" || wanted == "binary") return " A digest as bytea is `raw`.";
  if (wanted == "hmac") return " Did you mean `hmac-sha256`?";
  for (const std::string& name : known) {
    if (plainly(name) == wanted) return " Did you mean `" + name + "`?";
  }
  return "";
}

template <typename Value>
void read_choice(const Section& section, const std::string& key,
                 const std::vector<std::pair<std::string, Value>>& choices, Value& setting) {
  const auto text = section.text(key);
  if (!text) return;
  std::set<std::string> known;
  for (const auto& [name, value] : choices) {
    known.insert(name);
    if (name == *text) {
      setting = value;
      return;
    }
  }
  section.refuse("`" + key + "` cannot be \"" + *text + "\"." + advice_on(*text, known) +
                     " Choose one of: " + listed(known) + ".",
                 section.find(key));
}

// Reads one file name, or a list of file names while a secret is being replaced.
void read_jwt_secrets(const Section& section, bool has_preset, SourceConfig& source) {
  const toml::node* node = section.find("jwt_secret_file");
  if (node != nullptr && node->is_array()) {
    source.jwt_secret_files = *section.texts("jwt_secret_file");
    if (source.jwt_secret_files.empty()) {
      section.refuse("`jwt_secret_file` is an empty list. Name at least one file.", node);
    }
  } else if (node != nullptr) {
    if (!node->is_string()) {
      section.refuse("`jwt_secret_file` must be a string, or a list of strings.", node);
    }
    source.jwt_secret_files = {*section.text("jwt_secret_file")};
  }
  std::set<std::string> known;
  for (const std::string& file : source.jwt_secret_files) {
    if (file.empty()) section.refuse("`jwt_secret_file` holds an empty name.", node);
    if (!known.insert(file).second) {
      section.refuse("`jwt_secret_file` names \"" + file + "\" twice.", node);
    }
  }
  if (source.scheme != Scheme::kJwtJti) {
    if (node == nullptr) return;
    section.refuse("`jwt_secret_file` is only for scheme = \"jwt-hs256\": " +
                       (source.scheme == Scheme::kJwt
                            ? std::string("with \"jwt\" the table holds whole tokens, and the text"
                                          " decides.")
                            : "no other scheme checks signatures."),
                   node);
  }
  if (node == nullptr) {
    section.refuse("source \"" + source.name +
                   "\" keeps only the jti of its tokens, so `jwt_secret_file` must name the file"
                   " with the secret that they are signed with.");
  }
  // The key column of a preset holds no jti, so no token would ever match.
  if (has_preset && section.find("key") == nullptr) {
    section.refuse(
        "scheme = \"jwt-hs256\" looks tokens up by their jti, so `key` must name the"
        " column that holds it, such as key = \"jti\".",
        section.find("scheme"));
  }
}

Settings source_settings() {
  Settings settings = {"preset",          "name",      "database",      "table",
                       "scheme",          "encoding",  "status_active", "status_revoked",
                       "status_disabled", "time_zone", "peppers",       "jwt_secret_file"};
  for (std::size_t i = 0; i < kRoles; ++i) settings.insert(role_name(static_cast<Role>(i)));
  return settings;
}

SourceConfig read_source(const Section& section) {
  SourceConfig source;
  const bool has_preset = section.find("preset") != nullptr;
  if (const auto name = section.text("preset")) {
    const auto known = preset(*name);
    if (!known) {
      const auto names = preset_names();
      const std::set<std::string> choices(names.begin(), names.end());
      section.refuse("there is no preset \"" + *name + "\"." + did_you_mean(*name, choices) +
                         " Leave `preset` out to map the columns of any other table yourself.",
                     section.find("preset"));
    }
    source = *known;
  }
  source.name = needed_name(section, "api_keys");
  source.database = section.text("database").value_or("");
  if (const auto text = section.text("table")) {
    const auto table = TableName::parse(*text);
    if (!table || !is_sql_name(table->schema) || !is_sql_name(table->table)) {
      section.refuse(
          "`table` must be schema.table, such as \"public.api_keys\", without control or"
          " format characters, which nobody could see.",
          section.find("table"));
    }
    source.table = *table;
  }
  if (source.table.table.empty()) {
    section.refuse("`table` is missing. Name a preset, or write table = \"schema.table\".");
  }
  read_choice<Scheme>(section, "scheme",
                      {{"plain", Scheme::kPlain},
                       {"sha256", Scheme::kSha256},
                       {"hmac-sha256", Scheme::kHmac},
                       {"jwt", Scheme::kJwt},
                       {"jwt-hs256", Scheme::kJwtJti}},
                      source.scheme);
  read_choice<Encoding>(
      section, "encoding",
      {{"raw", Encoding::kRaw}, {"hex", Encoding::kHex}, {"base64", Encoding::kBase64}},
      source.encoding);
  for (std::size_t i = 0; i < kRoles; ++i) {
    const Role role = static_cast<Role>(i);
    const toml::node* node = section.find(role_name(role));
    if (node == nullptr) continue;
    if (const auto mapped = node->value_exact<bool>(); mapped && !*mapped) {
      source.columns.erase(role);  // for example, `scopes = false` removes a preset's column
      continue;
    }
    const std::string quoted_role = "`" + std::string(role_name(role)) + "`";
    if (node->is_array()) {
      section.refuse(quoted_role +
                         " is one column. Where several make one, give the table another: GENERATED"
                         " ALWAYS AS (a || ':' || b) STORED; as `id` it has to be UNIQUE.",
                     node);
    }
    if (!node->is_string()) {
      section.refuse(quoted_role + " must be a string, the name of a column.", node);
    }
    const auto column = section.text(role_name(role));
    if (!is_sql_name(*column)) {
      section.refuse("`" + std::string(role_name(role)) + "` is no column name.", node);
    }
    source.columns[role] = *column;
  }
  for (const auto& [role, column] : source.columns) {
    if (role == Role::kKey || source.column(Role::kKey) == nullptr ||
        column != *source.column(Role::kKey)) {
      continue;
    }
    // Notifications carry ids, and every user of the database can read them; callers receive the
    // other columns. A key must not be disclosed in either way.
    section.refuse("`" + std::string(role_name(role)) + "` names the same column as `key`, \"" +
                       column + "\". It must be another column.",
                   section.find(role_name(role)));
  }
  for (const auto& [role, column] : source.columns) {
    if (role == Role::kLastUsedAt || source.column(Role::kLastUsedAt) == nullptr ||
        column != *source.column(Role::kLastUsedAt)) {
      continue;
    }
    section.refuse("`last_used_at` names the same column as `" + std::string(role_name(role)) +
                       "`, \"" + column +
                       "\". It is written to whenever a key is used, so it must be a column that"
                       " means nothing else.",
                   section.find(role_name(Role::kLastUsedAt)));
  }
  for (const Role role : {Role::kId, Role::kKey}) {
    if (source.column(role) != nullptr) continue;
    section.refuse("source \"" + source.name + "\" needs `" + role_name(role) +
                   "`: the column that " +
                   (role == Role::kId ? "identifies a row." : "holds the key or its digest."));
  }
  if (auto values = section.texts("status_active")) source.status_active = *values;
  if (auto values = section.texts("status_revoked")) source.status_revoked = *values;
  if (auto values = section.texts("status_disabled")) source.status_disabled = *values;
  if (const auto zone = section.text("time_zone")) source.time_zone = *zone;
  source.peppers = section.text("peppers").value_or("");
  if (source.scheme == Scheme::kHmac && source.peppers.empty()) {
    section.refuse("source \"" + source.name +
                   "\" stores HMACs, so `peppers` must name the folder that holds the secret of"
                   " each version.");
  }
  // A default of "plain" would make every stored hash a working key.
  if (!has_preset && section.find("scheme") == nullptr) {
    section.refuse(
        "`scheme` is missing: plain (the column holds the key itself), sha256, hmac-sha256,"
        " jwt or jwt-hs256.");
  }
  const bool digests = source.scheme == Scheme::kSha256 || source.scheme == Scheme::kHmac;
  if (!digests && section.find("encoding") != nullptr) {
    section.refuse("`encoding` says how a digest is written down, but scheme = \"" +
                       std::string(scheme_name(source.scheme)) + "\" stores " +
                       (source.scheme == Scheme::kJwtJti ? "a jti" : "the key itself") +
                       ". Set `scheme` to sha256 or hmac-sha256, or leave"
                       " `encoding` out.",
                   section.find("encoding"));
  }
  if (source.scheme != Scheme::kHmac && !source.peppers.empty()) {
    section.refuse("`peppers` is only for scheme = \"hmac-sha256\".", section.find("peppers"));
  }
  read_jwt_secrets(section, has_preset, source);
  return source;
}

AllowOptions read_allow(const Section& section) {
  AllowOptions rule;
  if (const auto uid = section.integer("uid", 0, 4'294'967'294))
    rule.uid = static_cast<uid_t>(*uid);
  if (const auto gid = section.integer("gid", 0, 4'294'967'294))
    rule.gid = static_cast<gid_t>(*gid);
  if (const auto name = section.text("user")) {
    const passwd* entry = getpwnam(name->c_str());
    if (entry == nullptr) {
      section.refuse("there is no user \"" + *name + "\" on this host.", section.find("user"));
    }
    if (rule.uid)
      section.refuse("`uid` and `user` say the same thing twice.", section.find("user"));
    rule.uid = entry->pw_uid;
  }
  if (const auto name = section.text("group")) {
    const group* entry = getgrnam(name->c_str());
    if (entry == nullptr) {
      section.refuse("there is no group \"" + *name + "\" on this host.", section.find("group"));
    }
    if (rule.gid)
      section.refuse("`gid` and `group` say the same thing twice.", section.find("group"));
    rule.gid = entry->gr_gid;
  }
  if (!rule.uid && !rule.gid) {
    section.refuse("a rule must say whom it allows: uid, user, gid or group.");
  }
  if (auto sources = section.texts("sources")) {
    if (sources->empty()) {
      section.refuse("`sources` is empty. Leave it out to allow all, or leave out the rule.",
                     section.find("sources"));
    }
    rule.sources = std::move(*sources);
  }
  if (auto operations = section.texts("operations")) {
    static const std::set<std::string> kKnown = {"verify", "why", "sync", "status"};
    for (const std::string& operation : *operations) {
      if (kKnown.contains(operation)) continue;
      section.refuse(
          "there is no operation \"" + operation + "\"." + did_you_mean(operation, kKnown),
          section.find("operations"));
    }
    if (operations->empty()) {
      section.refuse("`operations` is empty. Leave it out to allow all, or leave out the rule.",
                     section.find("operations"));
    }
    rule.operations = std::move(*operations);
  }
  rule.reasons = section.flag("reasons");
  rule.metadata = section.flag("metadata");
  return rule;
}

// ---- checks across sections

// Line numbers of the entries, for error messages of checks across sections.
struct Lines {
  std::vector<std::size_t> databases, sources, allow;
};

void check_databases(const Section& file, const Options& options, const Lines& lines) {
  std::set<std::string> names;
  for (std::size_t i = 0; i < options.databases.size(); ++i) {
    const std::string& name = options.databases[i].name;
    if (!names.insert(name).second) {
      file.refuse_line("two databases are named \"" + name + "\".", lines.databases[i]);
    }
    if (std::ranges::none_of(options.sources,
                             [&](const SourceConfig& s) { return s.database == name; })) {
      file.refuse_line("no [[source]] uses database \"" + name + "\". Remove it, or add one.",
                       lines.databases[i]);
    }
  }
}

// Sources on one table share its triggers, so the triggers must watch the columns of all these
// sources.
void share_triggers(const Section& file, Options& options, const Lines& lines) {
  for (std::size_t i = 0; i < options.sources.size(); ++i) {
    SourceConfig& source = options.sources[i];
    std::set<std::string> watched, metadata;
    for (const SourceConfig& other : options.sources) {
      if (other.database != source.database || other.table.display() != source.table.display()) {
        continue;
      }
      if (*other.column(Role::kId) != *source.column(Role::kId)) {
        file.refuse_line("sources \"" + source.name + "\" and \"" + other.name +
                             "\" read the same table, so they must agree on `id`.",
                         lines.sources[i]);
      }
      for (const auto& [role, column] : other.columns) {
        if (role == Role::kMetadata) {
          metadata.insert(column);
        } else if (role != Role::kLastUsedAt) {
          watched.insert(column);
        }
      }
    }
    const std::string* last_used = source.column(Role::kLastUsedAt);
    if (last_used != nullptr && (watched.contains(*last_used) || metadata.contains(*last_used))) {
      file.refuse_line("source \"" + source.name + "\" would write `last_used_at` to column \"" +
                           *last_used +
                           "\", which another source on this table reads. Each use of a key would"
                           " then count as a change of it. Name another column.",
                       lines.sources[i]);
    }
    source.watched.assign(watched.begin(), watched.end());
    std::ranges::set_difference(metadata, watched, std::back_inserter(source.watched_metadata));
  }
}

// Copies the database settings that the loader needs into each source.
void take_from_databases(Options& options) {
  for (SourceConfig& source : options.sources) {
    for (const DatabaseOptions& database : options.databases) {
      if (database.name == source.database) source.allow_superuser = database.allow_superuser;
    }
  }
}

void check_names(const Section& file, Options& options, const Lines& lines) {
  if (options.databases.empty()) {
    file.refuse("no [[database]] is configured, so there is nowhere to load keys from.");
  }
  if (options.sources.empty()) {
    file.refuse("no [[source]] is configured, so there are no keys to answer from.");
  }
  if (options.sources.size() > kSourcesMax) {
    file.refuse_line("more than 32 sources.", lines.sources[kSourcesMax]);
  }
  std::set<std::string> databases, sources;
  for (const DatabaseOptions& database : options.databases) databases.insert(database.name);
  for (std::size_t i = 0; i < options.sources.size(); ++i) {
    SourceConfig& source = options.sources[i];
    if (!sources.insert(source.name).second) {
      file.refuse_line("two sources are named \"" + source.name + "\".", lines.sources[i]);
    }
    if (source.database.empty() && databases.size() > 1) {
      file.refuse_line("source \"" + source.name +
                           "\": `database` is missing. Choose one of: " + listed(databases) + ".",
                       lines.sources[i]);
    }
    if (source.database.empty()) source.database = *databases.begin();
    if (!databases.contains(source.database)) {
      file.refuse_line("source \"" + source.name + "\": there is no [[database]] named \"" +
                           source.database + "\". Known: " + listed(databases) + ".",
                       lines.sources[i]);
    }
  }
  check_databases(file, options, lines);
  share_triggers(file, options, lines);
  for (std::size_t i = 0; i < options.allow.size(); ++i) {
    for (const std::string& name : options.allow[i].sources) {
      if (sources.contains(name)) continue;
      file.refuse_line("an [[allow]] rule names source \"" + name + "\", which does not exist." +
                           did_you_mean(name, sources),
                       lines.allow[i]);
    }
  }
}

}  // namespace

Options Options::parse(std::string_view text, const std::string& path,
                       const ReadConninfo& read_conninfo) {
  toml::table table;
  try {
    table = toml::parse(text, path);
  } catch (const toml::parse_error& error) {
    throw ConfigError(path + ":" + std::to_string(error.source().begin.line) +
                      ": this is not valid TOML: " + std::string(error.description()));
  }
  Options options;
  const Section file(table, "", path,
                     {"listen", "limits", "freshness", "last_used", "log", "metrics", "memory",
                      "database", "source", "allow"});
  file.table("listen", {"socket", "mode", "group", "workers", "busy_poll"},
             [&](const Section& s) { read_listen(s, options.listen); });
  file.table("limits",
             {"connections", "connections_per_uid", "reply_memory_mib", "unknown_keys_logged",
              "idle_timeout", "stall_timeout", "drain_timeout"},
             [&](const Section& s) { read_limits(s, options.limits); });
  file.table("freshness", {"heartbeat", "bound", "max_stale", "audit", "start_timeout"},
             [&](const Section& s) { read_freshness(s, options.freshness); });
  file.table("last_used", {"flush"},
             [&](const Section& s) { read_last_used(s, options.last_used); });
  file.table("log", {"level"}, [&](const Section& s) {
    read_choice<std::string>(
        s, "level",
        {{"debug", "debug"}, {"info", "info"}, {"warning", "warning"}, {"error", "error"}},
        options.log_level);
  });
  file.table("metrics", {"listen", "mode", "group"}, [&](const Section& s) {
    read_metrics(s, options.metrics);
    if (options.metrics.socket == options.listen.socket) {
      s.refuse("`listen` is the path that callers use, too. Each needs one of its own.",
               s.find("listen"));
    }
  });
  file.table("memory", {"lock"}, [&](const Section& s) {
    if (const auto lock = s.value<bool>("lock", "true or false")) options.lock_memory = *lock;
  });
  Lines lines;
  file.tables("database", {"name", "conninfo", "password_file", "role", "allow_superuser"},
              [&](const Section& s) {
                lines.databases.push_back(s.line());
                options.databases.push_back(read_database(s, read_conninfo));
              });
  file.tables("source", source_settings(), [&](const Section& s) {
    lines.sources.push_back(s.line_of("database"));
    options.sources.push_back(read_source(s));
  });
  file.tables("allow",
              {"uid", "user", "gid", "group", "sources", "operations", "reasons", "metadata"},
              [&](const Section& s) {
                lines.allow.push_back(s.line_of("sources"));
                options.allow.push_back(read_allow(s));
              });
  check_names(file, options, lines);
  take_from_databases(options);
  return options;
}

Options Options::load(const std::string& path, const ReadConninfo& read_conninfo) {
  std::ifstream file(path, std::ios::binary);
  if (!file) {
    throw ConfigError("cannot read the configuration " + path + ": " +
                      std::generic_category().message(errno) +
                      ". Name an existing file with --config.");
  }
  std::ostringstream text;
  text << file.rdbuf();
  if (file.bad() || text.str().empty()) {
    throw ConfigError("the configuration " + path +
                      " is empty or cannot be read. Name a file with --config.");
  }
  return parse(text.str(), path, read_conninfo);
}

}  // namespace latchkey
