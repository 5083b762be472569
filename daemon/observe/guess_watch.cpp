#include "daemon/observe/guess_watch.h"

namespace latchkey {

std::vector<GuessWatch::Suspect> GuessWatch::look(
    std::span<const std::pair<uid_t, Admission::Caller>> callers, std::uint64_t keys_per_second,
    std::int64_t now_ns) {
  std::vector<Suspect> suspects;
  std::unordered_map<uid_t, Known> next;  // without the uids that Admission has forgotten
  for (const auto& [uid, caller] : callers) {
    const auto before = known_.find(uid);
    Known known = before != known_.end() ? before->second : Known{0, now_ns, now_ns};
    // Admission has forgotten the uid in between, and counts it anew.
    if (caller.unknown < known.keys) known = {0, now_ns, known.quiet_until_ns};
    const std::int64_t for_ns = now_ns - known.since_ns;
    if (for_ns >= kWindowNs) {
      const std::uint64_t keys = caller.unknown - known.keys;
      const double rate = static_cast<double>(keys) * 1e9 / static_cast<double>(for_ns);
      if (keys_per_second > 0 && rate > static_cast<double>(keys_per_second) &&
          now_ns >= known.quiet_until_ns) {
        suspects.push_back({uid, keys, for_ns});
        known.quiet_until_ns = now_ns + kQuietNs;
      }
      known.keys = caller.unknown;
      known.since_ns = now_ns;
    }
    next.emplace(uid, known);
  }
  known_ = std::move(next);
  return suspects;
}

}  // namespace latchkey
