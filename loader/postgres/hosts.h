// The servers that a conninfo names (PostgreSQL manual, "Connection Strings").
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "config/conninfo.h"
#include "loader/postgres/errors.h"

namespace latchkey {

struct PgTarget {
  std::string conninfo;  // keyword=value or URI; missing settings get our defaults
  // Reads the password. Called at each attempt to connect, so that a new password needs no restart.
  // Null: no password. Its exceptions fail the attempt.
  std::function<std::string()> password = {};
};

// One server of a conninfo; an empty field means libpq's default.
struct PgHost {
  std::string host;      // a name, an address, or the folder of a Unix socket
  std::string hostaddr;  // empty: resolved from the name, or a Unix socket
  std::string port;

  // For messages, such as "db2.example:5433", "db2.example (10.0.0.2):5433".
  [[nodiscard]] std::string display() const;
};
// Returns at least one host. libpq would try them one after another itself, but without a time
// limit: its connect_timeout does not apply to non-blocking connections (libpq, "PQconnectPoll").
[[nodiscard]] std::vector<PgHost> hosts_of(const std::string& conninfo);
// Returns one entry for each address of a host name, in the resolver's order; the host itself if
// there is nothing to resolve. libpq would try all addresses within one attempt, and a silent
// address would use up the time of all. Each entry keeps the name, because certificates are checked
// against it. May block as long as the resolver does. Throws PgConnectError.
[[nodiscard]] std::vector<PgHost> addresses_of(const PgHost& host);
// The conninfo's `connect_timeout`, or our default; at least 2 seconds, as in libpq.
[[nodiscard]] std::int64_t connect_timeout_ns(const std::string& conninfo);

[[nodiscard]] ConninfoFacts read_conninfo(const std::string& conninfo);

// In seconds, where the conninfo sets none.
constexpr const char* kConnectTimeoutDefault = "5";

// All that a conninfo sets, by keyword.
[[nodiscard]] std::map<std::string, std::string> conninfo_options(const std::string& conninfo);
// The value of a keyword; nothing: the conninfo does not set it.
[[nodiscard]] std::optional<std::string> conninfo_option(const std::string& conninfo,
                                                         std::string_view keyword);

}  // namespace latchkey
