// Who may ask what. The kernel says who is calling (SO_PEERCRED, unix(7)); the configuration says
// what that uid or gid may do. Decided once, when the connection is accepted.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "daemon/options.h"
#include "keymap/verdict.h"
#include "latchkey/wire.h"

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
};

class CallerRules {
 public:
  // `source_names` in the order of the verifier's routes.
  CallerRules(std::span<const AllowOptions> rules, std::span<const std::string> source_names,
              uid_t own_uid);

  // What the first rule that names the peer allows. Root and the daemon's own user may do
  // everything unless a rule names them. Nothing: not allowed at all.
  [[nodiscard]] std::optional<Rights> rights_of(const Peer& peer) const;

 private:
  struct Rule {
    std::optional<uid_t> uid;
    std::optional<gid_t> gid;
    Rights rights;
  };
  std::vector<Rule> rules_;
  Rights everything_;
  uid_t own_uid_;
};

}  // namespace latchkey
