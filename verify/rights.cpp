#include "verify/rights.h"

#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <fstream>
#include <iterator>
#include <sstream>

namespace latchkey {

std::optional<Peer> peer_of(int socket) {
  ucred credentials{};
  socklen_t length = sizeof credentials;
  if (getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &credentials, &length) != 0) return std::nullopt;
  Peer peer{credentials.uid, credentials.gid, credentials.pid, {}};
  // The first call asks for the size: the kernel returns ERANGE and writes the length it needs.
  length = 0;
  if (getsockopt(socket, SOL_SOCKET, SO_PEERGROUPS, nullptr, &length) != 0 && errno == ERANGE) {
    peer.groups.resize(length / sizeof(gid_t));
    if (getsockopt(socket, SOL_SOCKET, SO_PEERGROUPS, peer.groups.data(), &length) != 0) {
      peer.groups.clear();
    }
  }
  return peer;
}

namespace {

constexpr std::uint64_t kAllIds = 4'294'967'295;  // all 32-bit ids except (uid_t)-1, which is none
constexpr std::uint32_t kOverflowDefault = 65'534;

std::string text_of(const char* path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), {}};
}

}  // namespace

std::optional<std::uint32_t> OverflowIds::of(std::string_view map, std::string_view overflow) {
  // Each line holds: first id inside, first id outside, count.
  std::istringstream lines{std::string(map)};
  std::uint64_t inside = 0, outside = 0, count = 0, mapped = 0;
  while (lines >> inside >> outside >> count) mapped += count;
  if (lines.eof() && mapped >= kAllIds) return std::nullopt;
  std::istringstream number{std::string(overflow)};
  std::uint32_t id = 0;
  return number >> id ? id : kOverflowDefault;
}

OverflowIds OverflowIds::here() {
  return {of(text_of("/proc/self/uid_map"), text_of("/proc/sys/kernel/overflowuid")),
          of(text_of("/proc/self/gid_map"), text_of("/proc/sys/kernel/overflowgid"))};
}

CallerRules::CallerRules(std::span<const AllowOptions> rules,
                         std::span<const std::string> source_names, uid_t own_uid,
                         OverflowIds overflow)
    : own_uid_(own_uid), overflow_(overflow) {
  for (std::size_t i = 0; i < source_names.size(); ++i) everything_.sources |= SourceMask{1} << i;
  everything_.all_sources = everything_.reasons = everything_.metadata = true;
  for (const AllowOptions& option : rules) {
    Rule rule{option.uid, option.gid, everything_};
    rule.rights.reasons = option.reasons;
    rule.rights.metadata = option.metadata;
    if (!option.operations.empty()) {
      rule.rights.operations = 0;
      for (const auto& [name, type] : {std::pair{"verify", LATCHKEY_VERIFY},
                                       {"status", LATCHKEY_STATUS},
                                       {"sync", LATCHKEY_SYNC},
                                       {"why", LATCHKEY_WHY}}) {
        if (std::ranges::find(option.operations, name) != option.operations.end()) {
          rule.rights.operations |= operation(type);
        }
      }
    }
    if (!option.sources.empty()) {
      rule.rights.all_sources = false;
      rule.rights.sources = 0;
      for (std::size_t i = 0; i < source_names.size(); ++i) {
        if (std::ranges::find(option.sources, source_names[i]) != option.sources.end()) {
          rule.rights.sources |= SourceMask{1} << i;
        }
      }
    }
    rules_.push_back(rule);
  }
}

const CallerRules::Rule* CallerRules::rule_of(const Peer& peer) const {
  const auto found = std::ranges::find_if(rules_, [&](const Rule& rule) {
    if (rule.uid && (*rule.uid != peer.uid || peer.uid == overflow_.uid)) return false;
    if (!rule.gid) return true;
    if (rule.gid == overflow_.gid) return false;
    return *rule.gid == peer.gid || std::ranges::find(peer.groups, *rule.gid) != peer.groups.end();
  });
  return found == rules_.end() ? nullptr : &*found;
}

std::optional<Rights> CallerRules::rights_of(const Peer& peer) const {
  if (const Rule* rule = rule_of(peer)) return rule->rights;
  if (is_trusted(peer)) return everything_;
  return std::nullopt;
}

CallerId CallerRules::id_of(const Peer& peer) const {
  if (is_trusted(peer)) return {{Share::Kind::kReserve}, peer.uid};
  const Rule* rule = rule_of(peer);
  if (rule == nullptr) return {{Share::Kind::kNone}, peer.uid};
  return {{Share::Kind::kRule, rule->uid, rule->gid}, peer.uid};
}

}  // namespace latchkey
