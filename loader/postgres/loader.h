// One database, one thread: keeps the key sets of its sources in step with their tables.
//
// The thread makes no decisions: it asks Refresh for the next action, lets the lanes of a Link
// execute it, and waits once per turn. It is the only writer of its key sets.
#pragma once

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <unordered_set>
#include <vector>

#include "keymap/key_set.h"
#include "loader/postgres/followed_database.h"
#include "loader/postgres/link.h"
#include "loader/postgres/loader_status.h"

namespace latchkey {

class Loader {
 public:
  // `keys` of the sources and `quiescence` must outlive the loader.
  Loader(DatabaseConfig database, std::vector<LoaderSource> sources, Quiescence& quiescence);
  // Stops the thread. Requires that no reader is left.
  ~Loader();
  Loader(const Loader&) = delete;
  Loader& operator=(const Loader&) = delete;

  void start();
  // Requests the end of the thread and does not wait.
  void request_stop();
  // True if the thread has ended, or was never started. Until then it may hang in a file system or
  // a resolver, which cannot be interrupted.
  [[nodiscard]] bool ended() const { return ended_; }
  // Requests the end of the thread and waits for it.
  void stop();

  using Unready = latchkey::Unready;
  // Waits for the first complete and proven load of all sources. Returns early on problems that
  // only an operator can fix, and (with `first_attempt_only`) once every server has been tried in
  // vain.
  [[nodiscard]] std::optional<Unready> wait_ready(std::chrono::milliseconds timeout,
                                                  bool first_attempt_only) {
    return followed_.board.wait_ready(timeout, first_attempt_only);
  }
  // Waits until the findings of the loads so far are complete; returns false on a timeout.
  [[nodiscard]] bool wait_linted(std::chrono::milliseconds timeout) {
    return followed_.board.wait_linted(timeout);
  }

  // Calls `done` on the loader's thread once every change that had committed when sync() was called
  // is in force. Never calls it if the loader stops first: the caller has its own deadline.
  [[nodiscard]] std::uint64_t sync(std::function<void()> done);
  void abandon_sync(std::uint64_t id);

  // Sets the pepper versions that are available.
  void set_pepper_versions(const std::string& source, std::unordered_set<std::string> versions);

  [[nodiscard]] LoaderStatus status() const { return followed_.board.status(); }
  // The time of the thread's last loop turn (awake_ns()). A turn takes at most a second, unless one
  // step is slow: the end of a load of millions of changes, a host name that does not resolve.
  [[nodiscard]] std::int64_t ticked_ns() const { return ticked_ns_; }
  [[nodiscard]] const std::string& database() const { return followed_.config.name; }

 private:
  void post(std::function<void()> task);
  void wake() const;

  // On the thread:
  void run();
  void run_posted();
  void act();
  [[nodiscard]] std::int64_t carry_out_all();
  void carry_out(const Refresh::Action& action);
  void wait(std::int64_t until_ns);
  void collect();
  void report_stall(const std::optional<StallWatch::Stall>& stall, std::size_t waiting, bool any);
  void connect();
  [[nodiscard]] bool try_next_server();
  void prove(const Refresh::Prove& prove);
  void fail(const std::string& why, const std::string& advice = "", bool final = false);
  void disconnect();
  // A working connection, or null.
  [[nodiscard]] const PgConnection* alive() const;
  [[nodiscard]] bool third_in_use() const { return link_ && link_->has_third(); }

  FollowedDatabase followed_;
  std::unique_ptr<Link> link_;
  std::vector<PgHost> hosts_;
  std::size_t host_ = 0;  // the connected or tried one
  // The host's addresses; empty: it must be resolved. Each address gets its own attempt and
  // deadline.
  std::vector<PgHost> addresses_;
  std::size_t address_ = 0;
  StallWatch stall_watch_;
  std::int64_t stall_logged_ns_ = 0;  // duration of the stall when it was last logged
  std::map<std::uint64_t, std::function<void()>> syncs_;

  // Shared with other threads.
  std::mutex posted_mutex_;
  std::vector<std::function<void()>> posted_;
  std::atomic<bool> stopping_{false};
  std::atomic<bool> ended_{true};
  std::atomic<std::int64_t> ticked_ns_;
  std::atomic<std::uint64_t> next_sync_{1};
  int wake_fd_;
  std::thread thread_;
};

}  // namespace latchkey
