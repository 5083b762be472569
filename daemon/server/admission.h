// Quotas per caller for connections and for unread replies. All workers share one Admission; they
// ask it when a connection opens or closes, and when a caller does not read its replies at once.
//
// Quotas belong to the rule that admits a caller (Share), so a user gains nothing by having many
// uids. Within a rule that covers several uids, each uid may take at most half of the part that the
// others leave. A rule may take at most half of the memory for waiting replies that the other rules
// leave, as in dbus-broker's accounting. Root and the daemon's own user have a reserve: they can
// connect and receive answers when all other quotas are exhausted.
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
  // The figures on one uid.
  struct Caller {
    std::size_t connections = 0;
    std::size_t waiting_bytes = 0;  // of replies that it has not read
    std::uint64_t refused = 0;      // connections over its own or its rule's limit
    std::uint64_t unknown = 0;      // keys answered as unknown
  };

  explicit Admission(const LimitOptions& limits) : limits_(limits) {}

  // Applies to later requests; open connections and waiting replies stay.
  void set_limits(const LimitOptions& limits);
  [[nodiscard]] LimitOptions limits() const;

  // Call enter() for each new connection, and leave() when an admitted connection closes.
  [[nodiscard]] Admitted enter(const CallerId& id);
  void leave(const CallerId& id);
  [[nodiscard]] std::size_t connections() const;

  // Reserves `bytes` for replies that wait for this caller; false if the quota does not allow it.
  // Release them by free().
  [[nodiscard]] bool hold(const CallerId& id, std::size_t bytes);
  void free(const CallerId& id, std::size_t bytes);
  [[nodiscard]] std::size_t waiting_bytes() const;

  // The time after which a connection without a request is closed; shorter if few connections are
  // left.
  [[nodiscard]] std::int64_t idle_timeout_ns() const;

  // Adds unknown keys to the caller's count and returns the total.
  std::uint64_t count_unknown(const CallerId& id, std::uint64_t keys);

  // At most kCallersKept callers without a connection are remembered.
  static constexpr std::size_t kCallersKept = 1024;
  // Connections of root and the daemon's own user beyond the limit for all; Server keeps
  // descriptors for them.
  static constexpr std::size_t kReserved = 16;
  // The figures by uid, summed over all rules.
  [[nodiscard]] std::vector<std::pair<uid_t, Caller>> callers() const;

 private:
  // The total use of all callers of one rule.
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
