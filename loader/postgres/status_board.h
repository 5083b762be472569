// The loader thread's state for other threads: status, readiness, troubles. It has the only lock.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "loader/finding.h"
#include "loader/log_limit.h"
#include "loader/postgres/loader_status.h"

namespace latchkey {

// The reasons why a loader cannot get ready, one paragraph each. `final`: retrying cannot help.
struct Unready {
  std::vector<Finding> why;
  bool final = false;
};

class StatusBoard {
 public:
  StatusBoard(const std::string& database, std::int64_t now_ns);

  // ---- any thread

  [[nodiscard]] LoaderStatus status() const;
  // See Loader.
  [[nodiscard]] std::optional<Unready> wait_ready(std::chrono::milliseconds timeout,
                                                  bool first_attempt_only);
  [[nodiscard]] bool wait_linted(std::chrono::milliseconds timeout);

  // ---- the loader's thread

  // All sources have been loaded and proven once.
  [[nodiscard]] bool ready() const { return ready_; }
  // Returns true if it was not ready before.
  bool set_ready();
  void set_unready(Unready why);
  // Calls change(LoaderStatus&) under the lock.
  template <typename Change>
  void update(const Change& change) {
    const std::lock_guard lock(mutex_);
    change(status_);
  }
  void set_state(Refresh::State state, std::int64_t now_ns);
  // Sets the present trouble until another text replaces it; empty: none. `queue_in_the_way`: see
  // LoaderStatus.
  void set_trouble(const std::string& trouble, bool queue_in_the_way, std::int64_t now_ns);
  // An attempt, or a connection, failed. `advice` is for the operator who starts the daemon; the
  // log of a running daemon omits it. `others`: not all servers have been tried.
  void failed(const std::string& why, const std::string& advice, bool final, bool others,
              std::int64_t now_ns);
  void notify() { changed_.notify_all(); }

 private:
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  LoaderStatus status_;
  bool ready_ = false;
  std::optional<Unready> unready_;
  LogLimit failure_limit_;  // of the last error
  LogLimit live_limit_;
  LogLimit trouble_limit_;
};

}  // namespace latchkey
