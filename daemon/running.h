// The components of the running daemon, for the start, reloads and reports.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "base/clock.h"
#include "config/options.h"
#include "config/reload_plan.h"
#include "daemon/assembly.h"
#include "daemon/observe/status_inputs.h"
#include "daemon/server/server.h"
#include "keymap/key_set.h"
#include "keymap/quiescence.h"
#include "loader/postgres/loader.h"

namespace latchkey {

// All components that take part in answers. They are destroyed in reverse order: the server
// (readers) before the loaders (writers) before the key sets.
struct Running {
  Options options;
  std::int64_t started_ns = boot_ns();
  // Read once: setting the clock later must not look like a restart.
  double started_unix_s =
      std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
  Quiescence quiescence;
  std::vector<std::unique_ptr<KeySet>> key_sets;
  std::vector<std::unique_ptr<Loader>> loaders;
  PepperCounters counters;
  std::mutex policy_mutex;  // guards `policy` and `reload_report`
  std::shared_ptr<const Policy> policy;
  ReloadReport reload_report;
  std::unique_ptr<Server> server;
  // The reasons for a failed start, one log line each. They are logged last.
  std::vector<std::string>& reasons;

  // Starts no thread.
  Running(Options from, const Secrets& secrets, std::vector<std::string>& failures);
  // Loaders read one another's key sets, so all loaders stop before the first one is destroyed.
  ~Running();
  Running(const Running&) = delete;
  Running& operator=(const Running&) = delete;

  // If a loader hangs, the process ends here with `exit_code`.
  void stop_loaders(int exit_code);

  // Any thread may call it. `held` keeps the policy alive to which the result points.
  [[nodiscard]] StatusInputs status(std::shared_ptr<const Policy>& held);

  // Takes over the settings that can change while the daemon runs. If it throws, nothing has
  // changed.
  void take_over(const ReloadPlan& plan, const Secrets& secrets);
  [[nodiscard]] bool last_reload_failed();
  void reload_begun();
  // Records the result of a reload. An empty `error` means success, except for the settings in
  // `need_restart`. `another`: one more reload follows at once.
  void reloaded(const std::string& error, std::vector<std::string> need_restart, bool another);
};

// Carries out `sync` over several databases.
class Syncs {
 public:
  Syncs(const Options& options, const std::vector<std::unique_ptr<Loader>>& loaders);

  // Calls `done` once all changes committed to these sources before the call are in force. The
  // returned function abandons the wait.
  [[nodiscard]] std::function<void()> start(SourceMask sources, std::function<void()> done);

 private:
  const std::vector<std::unique_ptr<Loader>>& loaders_;
  std::vector<SourceMask> masks_;
};

}  // namespace latchkey
