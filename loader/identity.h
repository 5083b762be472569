// Which server answers? After a failover or a restore, another one may stand behind the same name.
#pragma once

#include <cstdint>
#include <string>

namespace latchkey {

struct ServerIdentity {
  std::string system;          // chosen by initdb; empty: this role may not know
  std::uint32_t timeline = 0;  // grows with each promotion; zero: not known
};

enum class IdentityChange {
  kNone,
  kPromotion,      // a later timeline of the same cluster: an ordinary failover
  kOlderTimeline,  // an earlier one: restored from a backup, or an old primary is back
  kOtherSystem,    // another cluster altogether
};

// What is known of one of them alone says nothing.
[[nodiscard]] inline IdentityChange identity_change(const ServerIdentity& before,
                                                    const ServerIdentity& now) {
  if (!before.system.empty() && !now.system.empty() && before.system != now.system) {
    return IdentityChange::kOtherSystem;
  }
  if (before.timeline == 0 || now.timeline == 0) return IdentityChange::kNone;
  if (now.timeline < before.timeline) return IdentityChange::kOlderTimeline;
  return now.timeline > before.timeline ? IdentityChange::kPromotion : IdentityChange::kNone;
}

}  // namespace latchkey
