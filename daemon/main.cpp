// latchkeyd: the order of start and stop. A comment at each milestone states the condition that
// holds from there on; the stop is the reverse of the start.

#include <spdlog/spdlog.h>

#include <CLI/CLI.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/signal_set.hpp>
#include <csignal>
#include <exception>
#include <functional>
#include <iostream>
#include <memory>
#include <new>
#include <optional>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/printable.h"
#include "base/standard_files.h"
#include "config/options.h"
#include "daemon/assembly.h"
#include "daemon/check.h"
#include "daemon/exit_status.h"
#include "daemon/http/http_server.h"
#include "daemon/log.h"
#include "daemon/monitoring.h"
#include "daemon/observe/status.h"
#include "daemon/observe/status_cache.h"
#include "daemon/process.h"
#include "daemon/reloads.h"
#include "daemon/running.h"
#include "daemon/server/server.h"
#include "daemon/service.h"
#include "daemon/start.h"
#include "daemon/unix/door.h"
#include "daemon/watch.h"
#include "loader/postgres/connection.h"
#include "loader/postgres/loader.h"

namespace latchkey {
namespace {

// Answers callers until a signal requests the end. `listening` is the socket that the service
// manager passed. `signals` are blocked at the call; this function unblocks them.
int serve(Running& running, const std::string& config_path, std::optional<int> listening,
          const sigset_t& signals) {
  Syncs syncs(running.options, running.loaders);
  StatusCache status([&running](const Rights& rights) {
    std::shared_ptr<const Policy> held;
    return status_json(running.status(held), rights);
  });
  running.server = std::make_unique<Server>(
      running.options, running.policy, running.quiescence,
      ServerHooks{.start_sync =
                      [&](SourceMask sources, std::function<void()> done) {
                        return syncs.start(sources, std::move(done));
                      },
                  .status_json =
                      [&status](const Rights& rights) { return status.text(rights, boot_ns()); }},
      unix_door());
  boost::asio::io_context control;
  const std::unique_ptr<HttpServer> http = start_monitoring(control, running);
  // The server refers to the objects above, so it is destroyed first.
  struct ServerEndsFirst {
    Running& running;
    ~ServerEndsFirst() { running.server.reset(); }
  } const server_ends_first{running};
  running.server->start(listening);
  // From here on the daemon answers callers.

  spdlog::info(
      "latchkeyd {} serves {} sources on {}", LATCHKEY_VERSION_TEXT, running.key_sets.size(),
      listening ? "the socket that the service manager passed" : running.options.listen.socket);
  notify_ready();

  Watch watch(control, running);
  Reloads reloads(control, running, config_path);
  boost::asio::signal_set handled(control, SIGTERM, SIGINT, SIGHUP);
  handled.add(SIGQUIT);
  pthread_sigmask(SIG_UNBLOCK, &signals, nullptr);
  std::function<void()> wait_signal = [&] {
    handled.async_wait([&](const boost::system::error_code& error, int signal) {
      if (error || signal != SIGHUP) {
        watch.stop();
        reloads.stop();
        if (http) http->stop();
        return;
      }
      reloads.request();
      wait_signal();
    });
  };
  wait_signal();
  control.run();
  // From here on the daemon stops: first new callers, then all callers, then the writers.

  notify_stopping();
  spdlog::info("stopping");
  running.server->stop();
  running.stop_loaders(0);
  spdlog::info("stopped");
  return 0;
}

struct Loaded {
  std::vector<Finding> trouble;  // empty: every source is loaded and proven, or `interrupted`
  bool interrupted = false;      // by a signal that ends the daemon
};

// Starts the loaders and waits for their first load.
Loaded load_all(Running& running, bool check) {
  for (const auto& loader : running.loaders) loader->start();
  Loaded loaded;
  const auto check_interrupted = [&] { return loaded.interrupted = is_pending(kEnds); };
  ShownStatus shown;
  const auto waiting = [&] {
    // The start has its own limit, `start_timeout`, which a running load extends.
    notify_patience(std::chrono::seconds(30));
    notify_alive();
    std::vector<LoaderStatus> statuses;
    for (const auto& loader : running.loaders) statuses.push_back(loader->status());
    shown.show(loading_line(statuses));
  };
  loaded.trouble = wait_loaded(running.loaders, running.options.freshness.start_timeout, check,
                               check_interrupted, waiting);
  return loaded;
}

int finish_check(Running& running, const std::vector<Finding>& trouble) {
  for (const auto& loader : running.loaders) {
    // report_check() reports a comparison that did not finish in time.
    (void)loader->wait_linted(std::chrono::duration_cast<std::chrono::milliseconds>(
        running.options.freshness.start_timeout));
  }
  const int code = report_check(trouble, running.loaders);
  std::cout.flush();
  running.stop_loaders(code);
  return code;
}

// `reasons` are for finish_log().
int run(const std::string& config_path, bool check, std::vector<std::string>& reasons) {
  Options options = Options::load(config_path, read_conninfo);
  // Only this thread's io_context handles signals, so they are blocked before any other thread
  // exists, including the log's. On a thread that did not block them, a SIGHUP that arrives before
  // there is a handler would end the daemon. (A check does not block them: it ends at once, as any
  // command does.)
  sigset_t signals;
  sigemptyset(&signals);
  for (const int signal : {SIGTERM, SIGINT, SIGHUP, SIGQUIT}) sigaddset(&signals, signal);
  if (!check) pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  ignore_stray_signals();
  start_log(options.log_level);
  keep_memory_private();
  if (options.lock_memory && !check) lock_memory();
  const std::optional<int> listening = check ? std::nullopt : passed_socket();

  auto secrets = read_secrets(options);
  if (secrets == nullptr) return 0;
  Running running(std::move(options), *secrets, reasons);
  secrets.reset();
  // A check reports the loaders' findings itself.
  if (check) spdlog::set_level(spdlog::level::off);
  const Loaded loaded = load_all(running, check);
  if (check) return finish_check(running, loaded.trouble);
  for (const Finding& finding : loaded.trouble) {
    reasons.push_back(finding.numbered());
  }
  if (!loaded.trouble.empty()) return kExitFailure;
  if (loaded.interrupted) {
    running.stop_loaders(0);
    return 0;
  }
  // From here on every source is loaded completely and proven to be up to date.

  try {
    return serve(running, config_path, listening, signals);
  } catch (const std::exception& error) {
    reasons.emplace_back(error.what());  // stop_loaders() logs it only if a loader hangs
    running.stop_loaders(kExitFailure);
    reasons.pop_back();
    throw;
  }
}

}  // namespace
}  // namespace latchkey

int main(int argc, char** argv) {
  latchkey::open_standard_files();
  const latchkey::PrintableStream out(std::cout), errors(std::cerr);
  CLI::App app{
      "latchkeyd answers whether the holder of an API key may in, as whom, with which scopes."};
  std::string config_path;
  bool check = false;
  app.add_option("--config", config_path, "Configuration file (TOML)")->required();
  app.add_flag("--check", check, "Validate configuration and tables, print each finding, and exit");
  app.set_version_flag("--version", "latchkeyd " LATCHKEY_VERSION_TEXT);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : latchkey::kExitConfiguration;
  }
  std::set_terminate(latchkey::say_why_it_ends);
  int code = latchkey::kExitFailure;
  std::vector<std::string> reasons;
  std::string why;
  try {
    code = latchkey::run(config_path, check, reasons);
    if (!std::cout.flush()) {
      why = "cannot write to standard output: the findings are lost.";
      code = latchkey::kExitFailure;
    }
  } catch (const latchkey::ConfigError& error) {
    why = error.what();
    code = latchkey::kExitConfiguration;
  } catch (const std::bad_alloc&) {
    why =
        "not enough memory to start. Give it more (systemd: MemoryMax=; else `ulimit -v`), or the"
        " host.";
  } catch (const std::system_error& error) {
    why = error.what();
    if (error.code() == std::errc::resource_unavailable_try_again) {
      why +=
          ": no more threads are to be had. Raise the limit (systemd: TasksMax=, LimitNPROC=; else"
          " `ulimit -u`), or set fewer `workers`.";
    }
  } catch (const std::exception& error) {
    why = error.what();
  }
  latchkey::finish_log(code, reasons);
  // This message follows all lines of the log.
  if (!why.empty()) latchkey::write_to_stderr("latchkeyd: " + latchkey::printable(why) + "\n");
  return code;
}
