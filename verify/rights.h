// Access control. The kernel identifies the caller (SO_PEERCRED, unix(7)); the configuration sets
// the rights of its uid or gid. The daemon decides when it accepts a connection, and again for open
// connections after a reload.
#pragma once

#include <sys/types.h>

#include <compare>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "config/options.h"
#include "latchkey/wire.h"
#include "verify/verifier.h"

namespace latchkey {

struct Peer {
  // (uid_t)-1 identifies no user: the value while the kernel has not reported the peer.
  uid_t uid = static_cast<uid_t>(-1);
  gid_t gid = static_cast<gid_t>(-1);
  pid_t pid = 0;
  std::vector<gid_t> groups;  // supplementary
};

// The peer of a connected Unix socket; nullopt if the kernel does not report its credentials.
[[nodiscard]] std::optional<Peer> peer_of(int socket);

// In a user namespace that does not map every id of the machine (user_namespaces(7)), the kernel
// shows one overflow id for all unmapped ids, so it identifies no particular user. nullopt: the
// namespace maps all ids, and each id identifies one user.
struct OverflowIds {
  std::optional<uid_t> uid = {};
  std::optional<gid_t> gid = {};

  // The overflow ids of this process (proc(5): /proc/self/uid_map, /proc/sys/kernel/overflowuid,
  // and the same files for groups). An unreadable map counts as incomplete; an unreadable overflow
  // id counts as the kernel's default.
  [[nodiscard]] static OverflowIds here();
  // Parses the texts of a map and of its overflow id; does no I/O.
  [[nodiscard]] static std::optional<std::uint32_t> of(std::string_view map,
                                                       std::string_view overflow);
};

// Request types, one bit each. Every admitted caller may ping.
using Operations = std::uint32_t;
[[nodiscard]] constexpr Operations operation(latchkey_type type) { return Operations{1} << type; }
constexpr Operations kAllOperations = operation(LATCHKEY_VERIFY) | operation(LATCHKEY_STATUS) |
                                      operation(LATCHKEY_SYNC) | operation(LATCHKEY_WHY);

struct Rights {
  SourceMask sources = 0;
  bool all_sources = false;  // may also learn the names of all sources
  bool reasons = false;      // may learn the reason of a refusal and the owner of a refused key
  bool metadata = false;
  Operations operations = kAllOperations;

  // Other callers receive only the states of their own sources.
  [[nodiscard]] bool whole_status() const { return all_sources && reasons; }
};

// The quota that a caller draws on. It belongs to the rule that admits the caller, because one user
// can have thousands of uids (subordinate uids, see subuid(5)). The uid and gid that its rule names
// identify a share, so it stays the same when a reload moves the rule.
struct Share {
  enum class Kind : std::uint8_t {
    kNone,     // no rule: all callers without rights have one share together
    kRule,     // the first rule that names the caller
    kReserve,  // root and the daemon's own user, independent of the rules
  };
  Kind kind = Kind::kNone;
  std::optional<uid_t> uid = {};  // as in the rule
  std::optional<gid_t> gid = {};

  // True for rules by group and for callers without a rule: each uid then needs a quota of its own
  // within the share.
  [[nodiscard]] bool has_many_uids() const {
    return kind == Kind::kNone || (kind == Kind::kRule && !uid);
  }
  friend auto operator<=>(const Share&, const Share&) = default;
};

// Identifies a caller for quotas: first by its rule, within the rule by its uid.
struct CallerId {
  Share share = {};
  uid_t uid = static_cast<uid_t>(-1);

  friend auto operator<=>(const CallerId&, const CallerId&) = default;
};

class CallerRules {
 public:
  // `source_names` are in the order of the verifier's routes.
  CallerRules(std::span<const AllowOptions> rules, std::span<const std::string> source_names,
              uid_t own_uid, OverflowIds overflow = {});

  // The rights that the first rule naming the peer grants. Root and the daemon's own user have all
  // rights unless a rule names them. nullopt: the peer has no rights. An overflow id matches no
  // rule and does not count as the daemon's own.
  [[nodiscard]] std::optional<Rights> rights_of(const Peer& peer) const;
  [[nodiscard]] CallerId id_of(const Peer& peer) const;

 private:
  struct Rule {
    std::optional<uid_t> uid;
    std::optional<gid_t> gid;
    Rights rights;
  };
  [[nodiscard]] const Rule* rule_of(const Peer& peer) const;
  [[nodiscard]] bool is_trusted(const Peer& peer) const {
    return peer.uid != overflow_.uid && (peer.uid == 0 || peer.uid == own_uid_);
  }
  std::vector<Rule> rules_;
  Rights everything_;
  uid_t own_uid_;
  OverflowIds overflow_;
};

}  // namespace latchkey
