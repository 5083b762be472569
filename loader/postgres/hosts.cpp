#include "loader/postgres/hosts.h"

#include <libpq-fe.h>
#include <netdb.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "base/printable.h"
#include "loader/postgres/conninfo.h"

namespace latchkey {
namespace {

constexpr LibpqConninfo kLibpq = {PQconninfoParse, PQconninfoFree, PQfreemem};

constexpr std::int64_t kConnectTimeoutMin = 2;  // seconds

// "a,b,,c" -> its parts, empty ones included.
std::vector<std::string> parts_of(const std::string& list) {
  std::vector<std::string> parts(1);
  for (const char c : list) {
    if (c == ',') {
      parts.emplace_back();
    } else {
      parts.back() += c;
    }
  }
  return parts;
}

}  // namespace

std::map<std::string, std::string> conninfo_options(const std::string& conninfo) {
  return Conninfo(conninfo, kLibpq).options();
}

std::optional<std::string> conninfo_option(const std::string& conninfo, std::string_view keyword) {
  return Conninfo(conninfo, kLibpq).option(keyword);
}

ConninfoFacts read_conninfo(const std::string& conninfo) {
  return Conninfo(conninfo, kLibpq).facts();
}

std::string PgHost::display() const {
  std::string text = !host.empty() ? host : !hostaddr.empty() ? hostaddr : "the default host";
  if (!host.empty() && !hostaddr.empty() && host != hostaddr) text += " (" + hostaddr + ")";
  if (!port.empty()) text += ":" + port;
  return text;
}

std::vector<PgHost> hosts_of(const std::string& conninfo) {
  const auto listed = [&](std::string_view keyword) {
    const auto value = conninfo_option(conninfo, keyword);
    return value ? parts_of(*value) : std::vector<std::string>();
  };
  const auto hosts = listed("host"), addresses = listed("hostaddr"), ports = listed("port");
  std::vector<PgHost> servers(std::max({hosts.size(), addresses.size(), std::size_t{1}}));
  for (std::size_t i = 0; i < servers.size(); ++i) {
    if (i < hosts.size()) servers[i].host = hosts[i];
    if (i < addresses.size()) servers[i].hostaddr = addresses[i];
    // A single port applies to all hosts (libpq, "Specifying Multiple Hosts").
    if (ports.size() == 1) servers[i].port = ports.front();
    if (ports.size() > 1 && i < ports.size()) servers[i].port = ports[i];
  }
  return servers;
}

namespace {

// More addresses are a DNS mistake or an attack: each one may take connect_timeout.
constexpr std::size_t kAddressesMax = 16;

}  // namespace

std::vector<PgHost> addresses_of(const PgHost& host) {
  // A path or an abstract name is a Unix socket (libpq, "host"); no host means libpq's default.
  const bool is_name = !host.host.empty() && host.host.front() != '/' && host.host.front() != '@';
  if (!is_name || !host.hostaddr.empty()) return {host};
  addrinfo hints{};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  const int error = getaddrinfo(host.host.c_str(), nullptr, &hints, &found);
  const std::unique_ptr<addrinfo, void (*)(addrinfo*)> owner(
      found, [](addrinfo* list) { freeaddrinfo(list); });
  if (error != 0) {
    throw PgConnectError("could not translate host name \"" + printable(host.host) +
                         "\" to address: " + gai_strerror(error));
  }
  std::vector<PgHost> addresses;
  for (const addrinfo* one = found; one != nullptr; one = one->ai_next) {
    std::array<char, NI_MAXHOST> text{};
    if (getnameinfo(one->ai_addr, one->ai_addrlen, text.data(), text.size(), nullptr, 0,
                    NI_NUMERICHOST) != 0) {
      continue;
    }
    const bool known = std::ranges::any_of(
        addresses, [&](const PgHost& other) { return other.hostaddr == text.data(); });
    if (!known && addresses.size() < kAddressesMax) {
      addresses.push_back({host.host, text.data(), host.port});
    }
  }
  if (addresses.empty()) {
    throw PgConnectError("host name \"" + printable(host.host) + "\" has no address");
  }
  return addresses;
}

std::int64_t connect_timeout_ns(const std::string& conninfo) {
  const auto given = conninfo_option(conninfo, "connect_timeout");
  std::int64_t seconds = given ? std::atoll(given->c_str()) : 0;
  if (seconds <= 0) seconds = std::atoll(kConnectTimeoutDefault);
  return std::max(seconds, kConnectTimeoutMin) * 1'000'000'000;
}

}  // namespace latchkey
