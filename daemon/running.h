// What runs, for the start, reloads and reports.
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

// What runs: everything that answers are made of. Parts are destroyed in the reverse order: the
// server (readers) before the loaders (writers) before the key sets.
struct Running {
  Options options;
  std::int64_t started_ns = boot_ns();
  // Once: a clock that is set later must not look like a restart.
  double started_unix_s =
      std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
  Quiescence quiescence;
  std::vector<std::unique_ptr<KeySet>> key_sets;
  std::vector<std::unique_ptr<Loader>> loaders;
  PepperCounters counters;
  std::mutex policy_mutex;  // of these two
  std::shared_ptr<const Policy> policy;
  ReloadReport reload_report;
  std::unique_ptr<Server> server;
  // Why it does not start, a line of the log each; they come when all else has ended.
  std::vector<std::string>& reasons;

  // Does not start anything.
  Running(Options from, const Secrets& secrets, std::vector<std::string>& failures);
  // Loaders look at one another's key sets, so all of them stop before the first one goes.
  ~Running();
  Running(const Running&) = delete;
  Running& operator=(const Running&) = delete;

  // If one of them hangs, the process ends here, with `exit_code`.
  void stop_loaders(int exit_code);

  // Any thread's. `held` keeps alive what the inputs lead to.
  [[nodiscard]] StatusInputs status(std::shared_ptr<const Policy>& held);

  // Takes over what can be changed while running. If it throws, nothing has changed.
  void take_over(const ReloadPlan& plan, const Secrets& secrets);
  [[nodiscard]] bool last_reload_failed();
  void reload_begun();
  // An empty error: it succeeded, but for what needs a restart. `another`: one more follows at
  // once.
  void reloaded(const std::string& error, std::vector<std::string> need_restart, bool another);
};

// `sync` over several databases.
class Syncs {
 public:
  Syncs(const Options& options, const std::vector<std::unique_ptr<Loader>>& loaders);

  // Calls `done` once all that was committed to these sources is in force; the function that it
  // returns gives up before.
  [[nodiscard]] std::function<void()> start(SourceMask sources, std::function<void()> done);

 private:
  const std::vector<std::unique_ptr<Loader>>& loaders_;
  std::vector<SourceMask> masks_;
};

}  // namespace latchkey
