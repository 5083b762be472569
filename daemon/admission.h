// Who may take how much: connections, and replies that wait to be read. Shared by all workers;
// asked when a connection comes or goes, and when a caller does not take its replies at once.
//
// Nobody can take everything. A caller (a uid) has a limit of connections of his own, and of the
// memory for waiting replies at most half of what the others leave, as in dbus-broker's accounting.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <map>
#include <mutex>
#include <vector>

#include "daemon/options.h"

namespace latchkey {

enum class Admitted { kYes, kTooManyConnections, kTooManyOfThisUid };

class Admission {
 public:
  // What is known of one uid.
  struct Caller {
    std::size_t connections = 0;
    std::size_t waiting_bytes = 0;  // of replies that it has not taken
    std::uint64_t refused = 0;      // connections, for its own limit
    std::uint64_t unknown = 0;      // keys that it was told to be unknown
  };

  explicit Admission(const LimitOptions& limits) : limits_(limits) {}

  // From now on; what is there already stays.
  void set_limits(const LimitOptions& limits);
  [[nodiscard]] LimitOptions limits() const;

  // A connection comes; whoever is admitted leaves.
  [[nodiscard]] Admitted enter(uid_t uid);
  void leave(uid_t uid);
  [[nodiscard]] std::size_t connections() const;

  // May replies of so many bytes wait for this caller to take them? Then free() them.
  [[nodiscard]] bool hold(uid_t uid, std::size_t bytes);
  void free(uid_t uid, std::size_t bytes);
  [[nodiscard]] std::size_t waiting_bytes() const;

  // After how long a connection without a request is closed: the fewer are left, the sooner.
  [[nodiscard]] std::int64_t idle_timeout_ns() const;

  // Returns how many this uid has asked for by now.
  std::uint64_t count_unknown(uid_t uid, std::uint64_t keys);

  // At most kCallersKept that have no connection are remembered.
  static constexpr std::size_t kCallersKept = 1024;
  [[nodiscard]] std::vector<std::pair<uid_t, Caller>> callers() const;

 private:
  void forget_some();

  mutable std::mutex mutex_;
  LimitOptions limits_;
  std::map<uid_t, Caller> callers_;
  std::size_t connections_ = 0;
  std::size_t waiting_bytes_ = 0;
};

}  // namespace latchkey
