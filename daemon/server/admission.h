// Who may take how much: connections, and replies that wait to be read. Shared by all workers;
// asked when a connection comes or goes, and when a caller does not take its replies at once.
//
// Quotas go by the rule that admits a caller (Share), so that a user gains nothing by many uids.
// Within a rule that covers several uids, each may take at most half of what the others leave. Of
// the memory for waiting replies, a rule may take at most half of what the other rules leave, as in
// dbus-broker's accounting. Root and the daemon's own user have a reserve: they can connect and be
// answered when everything else is taken.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <map>
#include <mutex>
#include <vector>

#include "config/options.h"
#include "verify/rights.h"

namespace latchkey {

enum class Admitted { kYes, kTooManyConnections, kOverQuota };

class Admission {
 public:
  // What is known of one uid.
  struct Caller {
    std::size_t connections = 0;
    std::size_t waiting_bytes = 0;  // of replies that it has not taken
    std::uint64_t refused = 0;      // connections, for its or its rule's limit
    std::uint64_t unknown = 0;      // keys that it was told to be unknown
  };

  explicit Admission(const LimitOptions& limits) : limits_(limits) {}

  // From now on; what is there already stays.
  void set_limits(const LimitOptions& limits);
  [[nodiscard]] LimitOptions limits() const;

  // A connection comes; whoever is admitted leaves.
  [[nodiscard]] Admitted enter(const CallerId& id);
  void leave(const CallerId& id);
  [[nodiscard]] std::size_t connections() const;

  // May replies of so many bytes wait for this caller to take them? Then free() them.
  [[nodiscard]] bool hold(const CallerId& id, std::size_t bytes);
  void free(const CallerId& id, std::size_t bytes);
  [[nodiscard]] std::size_t waiting_bytes() const;

  // After how long a connection without a request is closed: the fewer are left, the sooner.
  [[nodiscard]] std::int64_t idle_timeout_ns() const;

  // Returns how many this caller has asked for by now.
  std::uint64_t count_unknown(const CallerId& id, std::uint64_t keys);

  // At most kCallersKept that have no connection are remembered.
  static constexpr std::size_t kCallersKept = 1024;
  // Connections of root and the daemon's own user beyond the limit of all; there are descriptors
  // for them (Server).
  static constexpr std::size_t kReserved = 16;
  // By uid, whatever rules admitted it.
  [[nodiscard]] std::vector<std::pair<uid_t, Caller>> callers() const;

 private:
  // What the callers of one rule take together.
  struct Use {
    std::size_t connections = 0;
    std::size_t waiting_bytes = 0;
  };
  [[nodiscard]] std::size_t connections_for(const CallerId& id, const Caller& caller,
                                            const Use& use) const;
  [[nodiscard]] std::size_t bytes_for(const CallerId& id, const Caller& caller,
                                      const Use& use) const;
  void forget_some();

  mutable std::mutex mutex_;
  LimitOptions limits_;
  std::map<CallerId, Caller> callers_;
  std::map<Share, Use> uses_;
  std::size_t connections_ = 0;
  std::size_t waiting_bytes_ = 0;
};

}  // namespace latchkey
