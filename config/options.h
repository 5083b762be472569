// The configuration file: one TOML document, every setting with a default, a limit and an
// explanation (docs/latchkey.toml is the commented reference).
//
// Unknown keys are errors: a misspelt setting must not silently mean its default. An error message
// names the line, the problem and the correction.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "config/conninfo.h"
#include "config/source.h"

namespace latchkey {

// what() is a paragraph for people.
class ConfigError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

struct ListenOptions {
  std::string socket = "/run/latchkey/latchkey.sock";
  mode_t mode = 0660;
  std::optional<gid_t> group;  // of the socket; nullopt: the daemon's own
  unsigned workers = 1;
  std::chrono::nanoseconds busy_poll{0};  // time for which an idle worker polls before it sleeps

  friend bool operator==(const ListenOptions&, const ListenOptions&) = default;
};

// Either a Unix socket or a loopback port; neither: no metrics.
struct MetricsOptions {
  std::string socket;
  std::string address;  // an IP address
  std::uint16_t port = 0;
  mode_t mode = 0660;          // of the socket
  std::optional<gid_t> group;  // of the socket; nullopt: the daemon's own

  friend bool operator==(const MetricsOptions&, const MetricsOptions&) = default;
  [[nodiscard]] bool enabled() const { return !socket.empty() || !address.empty(); }
  // True if file permissions restrict access to the owner and one group. A port has no permissions.
  [[nodiscard]] bool is_protected() const { return !socket.empty() && (mode & 0007) == 0; }
};

struct LimitOptions {
  std::size_t connections = 4096;
  std::size_t connections_per_uid = 1024;
  std::size_t reply_memory = std::size_t{64} << 20;  // bytes of replies that callers have not read
  std::uint64_t unknown_keys_logged = 100;           // per second and uid; 0: never
  std::chrono::nanoseconds idle_timeout = std::chrono::minutes(10);
  std::chrono::nanoseconds stall_timeout = std::chrono::seconds(5);  // half a frame; unread replies
  std::chrono::nanoseconds drain_timeout = std::chrono::seconds(5);

  friend bool operator==(const LimitOptions&, const LimitOptions&) = default;
};

struct FreshnessOptions {
  std::chrono::nanoseconds heartbeat = std::chrono::seconds(1);
  std::chrono::nanoseconds bound = std::chrono::seconds(5);
  std::chrono::nanoseconds max_stale = std::chrono::hours(1);
  std::chrono::nanoseconds audit = std::chrono::minutes(10);  // zero: never
  std::chrono::nanoseconds start_timeout = std::chrono::seconds(10);

  friend bool operator==(const FreshnessOptions&, const FreshnessOptions&) = default;
};

struct LastUsedOptions {
  std::chrono::nanoseconds flush = std::chrono::seconds(5);

  friend bool operator==(const LastUsedOptions&, const LastUsedOptions&) = default;
};

struct DatabaseOptions {
  std::string name;
  std::string conninfo;
  std::string password_file;     // empty: none. Relative to $CREDENTIALS_DIRECTORY
  std::string role;              // grantee of `latchkey sql grant`; default: conninfo's user
  bool allow_superuser = false;  // connect even if the role is a superuser

  friend bool operator==(const DatabaseOptions&, const DatabaseOptions&) = default;
};

// A caller has the rights of the first rule that names it.
struct AllowOptions {
  std::optional<uid_t> uid;
  std::optional<gid_t> gid;
  std::vector<std::string> sources = {};     // empty: all
  std::vector<std::string> operations = {};  // verify, why, sync, status; empty: all
  bool reasons = false;
  bool metadata = false;
};

struct Options {
  ListenOptions listen;
  MetricsOptions metrics;
  LimitOptions limits;
  FreshnessOptions freshness;
  LastUsedOptions last_used;
  std::string log_level = "info";
  bool lock_memory = true;  // if the system permits it
  std::vector<DatabaseOptions> databases;
  std::vector<SourceConfig> sources;
  std::vector<AllowOptions> allow;

  // Throws ConfigError. `path` is for messages.
  [[nodiscard]] static Options parse(std::string_view text, const std::string& path,
                                     const ReadConninfo& read_conninfo);
  [[nodiscard]] static Options load(const std::string& path, const ReadConninfo& read_conninfo);
};

}  // namespace latchkey
