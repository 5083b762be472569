// Addresses that only this host can reach.
#pragma once

#include <arpa/inet.h>
#include <netinet/in.h>

#include <optional>
#include <string>

namespace latchkey {

// True for 127.0.0.0/8 and ::1. nullopt: the text is no IP address (inet_pton(3)).
[[nodiscard]] inline std::optional<bool> is_loopback_address(const std::string& text) {
  in_addr v4{};
  if (inet_pton(AF_INET, text.c_str(), &v4) == 1) return (ntohl(v4.s_addr) >> 24) == IN_LOOPBACKNET;
  in6_addr v6{};
  if (inet_pton(AF_INET6, text.c_str(), &v6) == 1) return IN6_IS_ADDR_LOOPBACK(&v6) != 0;
  return std::nullopt;
}

}  // namespace latchkey
