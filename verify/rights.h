// Who may ask what. The kernel says who is calling (SO_PEERCRED, unix(7)); the configuration says
// what that uid or gid may do. Decided once, when the connection is accepted.
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
  // Nobody, until the kernel has said who.
  uid_t uid = static_cast<uid_t>(-1);
  gid_t gid = static_cast<gid_t>(-1);
  pid_t pid = 0;
  std::vector<gid_t> groups;  // supplementary
};

// Who stands at the other end of a connected Unix socket; nothing if the kernel will not say.
[[nodiscard]] std::optional<Peer> peer_of(int socket);

// Where not every id of the machine has a counterpart here (user_namespaces(7)), the kernel shows
// one overflow id for all that have none: it is nobody in particular. Nothing: each id here is
// somebody's.
struct OverflowIds {
  std::optional<uid_t> uid = {};
  std::optional<gid_t> gid = {};

  // Of this process (proc(5): /proc/self/uid_map, /proc/sys/kernel/overflowuid; likewise of
  // groups). What cannot be read counts as a map that is not whole, and the kernel's default id.
  [[nodiscard]] static OverflowIds here();
  // From the text of such a map and the overflow id's; pure.
  [[nodiscard]] static std::optional<std::uint32_t> of(std::string_view map,
                                                       std::string_view overflow);
};

// Types of requests, each a bit. To ping is everybody's who is admitted.
using Operations = std::uint32_t;
[[nodiscard]] constexpr Operations operation(latchkey_type type) { return Operations{1} << type; }
constexpr Operations kAllOperations = operation(LATCHKEY_VERIFY) | operation(LATCHKEY_STATUS) |
                                      operation(LATCHKEY_SYNC) | operation(LATCHKEY_WHY);

struct Rights {
  SourceMask sources = 0;
  bool all_sources = false;  // may also learn which names exist
  bool reasons = false;      // why a key is refused, and whose it is
  bool metadata = false;
  Operations operations = kAllOperations;

  // Others are told how their sources stand, and no more.
  [[nodiscard]] bool whole_status() const { return all_sources && reasons; }
};

// Whose quotas a caller draws on: those of the rule that admits it, however many uids it has. (A
// user with subordinate uids has thousands, see subuid(5).) A share is known by whom its rule
// names, so it stays the same when a reload moves the rule.
struct Share {
  enum class Kind : std::uint8_t {
    kNone,     // no rule: all whom nothing is allowed have one share together
    kRule,     // the first rule that names it
    kReserve,  // root and the daemon's own user, whatever the rules say
  };
  Kind kind = Kind::kNone;
  std::optional<uid_t> uid = {};  // as the rule has it
  std::optional<gid_t> gid = {};

  // Of rules by group and of strangers: uids inside have to be kept from one another.
  [[nodiscard]] bool has_many_uids() const {
    return kind == Kind::kNone || (kind == Kind::kRule && !uid);
  }
  friend auto operator<=>(const Share&, const Share&) = default;
};

// A caller as it is counted: first by its rule, within that by its uid.
struct CallerId {
  Share share = {};
  uid_t uid = static_cast<uid_t>(-1);

  friend auto operator<=>(const CallerId&, const CallerId&) = default;
};

class CallerRules {
 public:
  // `source_names` in the order of the verifier's routes.
  CallerRules(std::span<const AllowOptions> rules, std::span<const std::string> source_names,
              uid_t own_uid, OverflowIds overflow = {});

  // What the first rule that names the peer allows. Root and the daemon's own user may do
  // everything unless a rule names them. Nothing: not allowed at all. An overflow id is named by no
  // rule, and is not the daemon's own.
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
