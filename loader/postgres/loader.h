// One database, one thread: keeps the key sets of its sources in step with their tables.
//
// The thread is a shell. It asks Refresh what to do, has the lanes of a Link do it, and waits once.
// It is the only writer of its key sets.
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
  // `keys` of the sources and `quiescence` outlive the loader.
  Loader(DatabaseConfig database, std::vector<LoaderSource> sources, Quiescence& quiescence);
  // Stops the thread. No reader may be left.
  ~Loader();
  Loader(const Loader&) = delete;
  Loader& operator=(const Loader&) = delete;

  void start();
  // Asks the thread to end, and does not wait.
  void request_stop();
  // Its thread has ended, or was never started. Until then it may hang in a file system or a
  // resolver, which nothing can interrupt.
  [[nodiscard]] bool ended() const { return ended_; }
  // Asks and waits.
  void stop();

  using Unready = latchkey::Unready;
  // Waits for the first complete and proven load of all sources. Returns early on troubles that
  // only an operator can mend, and (with `first_attempt_only`) once every server has been tried in
  // vain.
  [[nodiscard]] std::optional<Unready> wait_ready(std::chrono::milliseconds timeout,
                                                  bool first_attempt_only) {
    return followed_.board.wait_ready(timeout, first_attempt_only);
  }
  // Waits until the findings of the loads so far are complete; false if they are not in time.
  [[nodiscard]] bool wait_linted(std::chrono::milliseconds timeout) {
    return followed_.board.wait_linted(timeout);
  }

  // Calls `done` on the loader's thread once everything that had committed when sync() was called
  // is in force. Never, if the loader stops first: the caller keeps its own deadline.
  [[nodiscard]] std::uint64_t sync(std::function<void()> done);
  void abandon_sync(std::uint64_t id);

  // New pepper versions are at hand.
  void set_pepper_versions(const std::string& source, std::unordered_set<std::string> versions);

  [[nodiscard]] LoaderStatus status() const { return followed_.board.status(); }
  // When its thread last turned its loop (awake_ns()). It does so at least every second, unless one
  // step takes long: the end of a load of millions of changes, a host name that does not resolve.
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
  // A connection that works, or null.
  [[nodiscard]] const PgConnection* alive() const;
  [[nodiscard]] bool third_in_use() const { return link_ && link_->has_third(); }

  FollowedDatabase followed_;
  std::unique_ptr<Link> link_;
  std::vector<PgHost> hosts_;
  std::size_t host_ = 0;  // that is connected, or tried
  // Of that host; none: it has to be resolved. Each has an attempt, and a deadline, of its own.
  std::vector<PgHost> addresses_;
  std::size_t address_ = 0;
  StallWatch stall_watch_;
  std::int64_t stall_logged_ns_ = 0;  // how long the stall had lasted when it was last logged
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
