#include "config/read_sections.h"

#include <grp.h>
#include <pwd.h>
#include <sys/un.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <optional>
#include <set>
#include <string>
#include <utility>

#include "base/loopback.h"
#include "config/settings_text.h"

namespace latchkey {
namespace {

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

}  // namespace

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
  const std::optional<bool> loopback = is_loopback_address(host);
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

}  // namespace latchkey
