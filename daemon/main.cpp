// latchkeyd: this file is the order of things. Each milestone says what is true from there on; the
// end mirrors the beginning.

#include <spdlog/async.h>
#include <spdlog/fmt/ranges.h>
#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/sinks/systemd_sink.h>
#include <spdlog/spdlog.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <array>
#include <boost/asio/io_context.hpp>
#include <boost/asio/signal_set.hpp>
#include <boost/asio/steady_timer.hpp>
#include <csignal>
#include <cstdlib>
#include <exception>
#include <future>
#include <iostream>
#include <mutex>
#include <new>
#include <string_view>
#include <thread>

#include "daemon/assembly.h"
#include "daemon/guess_watch.h"
#include "daemon/http.h"
#include "daemon/metrics.h"
#include "daemon/options.h"
#include "daemon/printable_sink.h"
#include "daemon/reload.h"
#include "daemon/server.h"
#include "daemon/service.h"
#include "daemon/status.h"
#include "daemon/status_cache.h"
#include "keymap/clock.h"
#include "loader/loader.h"
#include "protocol/printable.h"

namespace latchkey {
namespace {

constexpr int kExitFailure = 1;        // the world is not as the configuration says
constexpr int kExitConfiguration = 2;  // the configuration or the command line is wrong

// No core file may show what this process has seen; nobody but root may attach to it.
void keep_memory_private() {
  const rlimit none{0, 0};
  setrlimit(RLIMIT_CORE, &none);
  prctl(PR_SET_DUMPABLE, 0);
}

// Nothing of it goes to a swap device. Each page is locked when it is first touched.
void lock_memory() {
  rlimit limit{};
  getrlimit(RLIMIT_MEMLOCK, &limit);
  // With a limit that is too small for the keys to come, it is they that could not be loaded.
  const bool permitted = limit.rlim_cur == RLIM_INFINITY || geteuid() == 0;
  if (permitted && mlockall(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT) == 0) return;
  spdlog::info(
      "memory is not locked, so digests of keys may be written to swap. To lock it, set"
      " LimitMEMLOCK=infinity in the service (or `ulimit -l unlimited`); to accept it without this"
      " line, set lock = false in [memory].");
}

// Is standard error the journal (systemd.exec(5), "$JOURNAL_STREAM")?
bool logs_to_journal() {
  const char* stream = std::getenv("JOURNAL_STREAM");
  struct stat info {};
  if (stream == nullptr || fstat(STDERR_FILENO, &info) != 0) return false;
  return std::to_string(info.st_dev) + ":" + std::to_string(info.st_ino) == stream;
}

constexpr std::size_t kLogLines = 8192;
constexpr auto kLogPatience = std::chrono::seconds(1);

// A log that nobody reads (a journal that hangs, a full pipe) must not hold up answers: lines wait
// in a queue, and the oldest go when it is full.
void start_log(const std::string& level) {
  spdlog::init_thread_pool(kLogLines, 1);
  spdlog::sink_ptr sink;
  if (logs_to_journal()) {
    sink = std::make_shared<spdlog::sinks::systemd_sink_mt>("latchkeyd");
  } else {
    sink = std::make_shared<spdlog::sinks::stderr_color_sink_mt>();
  }
  const auto log = std::make_shared<spdlog::async_logger>(
      "latchkeyd", std::make_shared<PrintableSink>(sink), spdlog::thread_pool(),
      spdlog::async_overflow_policy::overrun_oldest);
  log->set_pattern("%Y-%m-%dT%H:%M:%S.%eZ %l: %v", spdlog::pattern_time_type::utc);
  log->set_level(spdlog::level::from_str(level));
  log->flush_on(spdlog::level::trace);
  spdlog::set_default_logger(log);
}

std::size_t log_lines_dropped() { return spdlog::thread_pool()->overrun_counter(); }

// What waits is written, unless nobody takes it: then the process ends without.
void finish_log(int exit_code) {
  std::promise<void> written;
  std::thread([&written] {
    spdlog::shutdown();
    written.set_value();
  }).detach();
  if (written.get_future().wait_for(kLogPatience) == std::future_status::timeout) {
    std::_Exit(exit_code);
  }
}

// ---- waiting for the first load

// What is wrong, for people; empty if everything is loaded. Trouble that may pass (a database that
// is still starting) is given `start_timeout`; a load under way is given its time.
std::vector<LintFinding> wait_loaded(const std::vector<std::unique_ptr<Loader>>& loaders,
                                     std::chrono::nanoseconds patience, bool first_attempt_only,
                                     const std::function<bool()>& interrupted,
                                     const std::function<void()>& waiting) {
  std::vector<LintFinding> trouble;
  for (const auto& loader : loaders) {
    std::int64_t deadline_ns = boot_ns() + patience.count();
    for (;;) {
      const auto unready = loader->wait_ready(std::chrono::milliseconds(100), first_attempt_only);
      if (!unready || interrupted()) break;
      const LoaderStatus status = loader->status();
      if (status.state == Refresh::State::kLoading) deadline_ns = boot_ns() + patience.count();
      waiting();
      const bool failed_once = first_attempt_only && status.failures > 0;
      if (!unready->final && !failed_once && boot_ns() < deadline_ns) continue;
      trouble.insert(trouble.end(), unready->why.begin(), unready->why.end());
      break;
    }
  }
  return trouble;
}

// ---- sync over several databases

class Syncs {
 public:
  Syncs(const Options& options, const std::vector<std::unique_ptr<Loader>>& loaders)
      : loaders_(loaders) {
    for (const auto& loader : loaders) {
      SourceMask mask = 0;
      for (std::size_t i = 0; i < options.sources.size(); ++i) {
        if (options.sources[i].database == loader->database()) mask |= SourceMask{1} << i;
      }
      masks_.push_back(mask);
    }
  }

  std::function<void()> start(SourceMask sources, std::function<void()> done) {
    const auto left = std::make_shared<std::atomic<std::size_t>>(1);
    const auto one_done = [left, done = std::move(done)] {
      if (--*left == 0) done();
    };
    std::vector<std::pair<Loader*, std::uint64_t>> asked;
    for (std::size_t i = 0; i < loaders_.size(); ++i) {
      if ((masks_[i] & sources) == 0) continue;
      ++*left;
      asked.emplace_back(loaders_[i].get(), loaders_[i]->sync(one_done));
    }
    one_done();  // the one that kept the count above zero while databases were asked
    return [asked] {
      for (const auto& [loader, id] : asked) loader->abandon_sync(id);
    };
  }

 private:
  const std::vector<std::unique_ptr<Loader>>& loaders_;
  std::vector<SourceMask> masks_;
};

// ---- --check

int report_check(const std::vector<LintFinding>& trouble,
                 const std::vector<std::unique_ptr<Loader>>& loaders) {
  std::array<std::size_t, 3> of_severity{};
  std::size_t count = 0;
  const auto print = [&](const LintFinding& finding, const std::string& where) {
    ++of_severity[static_cast<std::size_t>(finding.severity())];
    std::cout << ++count << ". " << finding.number() << " " << severity_name(finding.severity())
              << ": " << where << printable(finding.text) << "\n\n";
  };
  for (const LintFinding& finding : trouble) print(finding, "");
  for (const auto& loader : loaders) {
    for (const SourceStatus& source : loader->status().sources) {
      for (const LintFinding& finding : source.findings) {
        print(finding, "source \"" + source.name + "\": ");
      }
      if (source.comparing) {
        std::cout << "source \"" << source.name
                  << "\" could not be compared with the others in time; the log of a running"
                     " latchkeyd will say which keys they share.\n";
      }
      if (trouble.empty()) {
        std::cout << "source \"" << source.name << "\": " << source.load_rows << " rows read, "
                  << source.keys << " keys.\n";
      }
    }
  }
  const auto [notes, warnings, errors] = of_severity;
  if (count > 0) {
    std::cout << "errors: " << errors << ", warnings: " << warnings << ", notes: " << notes
              << ". docs/lint.md says more of each number.\n";
  }
  if (!trouble.empty()) {
    std::cout << "latchkeyd would not start.\n";
  } else if (errors > 0) {
    std::cout << "latchkeyd would start, but not every source could accept a key.\n";
  } else {
    std::cout << "The configuration and its tables are in order.\n";
  }
  return errors == 0 ? 0 : kExitFailure;
}

// ---- what runs, for reloads and reports

// Everything that answers are made of. Parts are destroyed in the reverse order: the server
// (readers) before the loaders (writers) before the key sets.
struct Running {
  Options options;
  std::int64_t started_ns = boot_ns();
  Quiescence quiescence;
  std::vector<std::unique_ptr<KeySet>> key_sets;
  std::vector<std::unique_ptr<Loader>> loaders;
  PepperCounters counters;
  std::mutex policy_mutex;
  std::shared_ptr<const Policy> policy;
  std::unique_ptr<Server> server;

  explicit Running(Options from) : options(std::move(from)) {
    for (const SourceConfig& source : options.sources) {
      key_sets.push_back(std::make_unique<KeySet>(source.name, quiescence));
      if (source.column(Role::kLastUsedAt) == nullptr) continue;
      key_sets.back()->uses = std::make_unique<UseLog>(options.listen.workers);
    }
    const Secrets secrets(options);
    policy = make_policy(options, secrets, counters, key_sets);
    loaders = make_loaders(options, secrets, quiescence, key_sets);
    // From here on peppers are only in keyed hash states, and passwords with the loaders, who need
    // them to connect again.
  }
  // Loaders look at one another's key sets, so all of them stop before the first one goes.
  ~Running() {
    server.reset();
    stop_loaders();
  }
  Running(const Running&) = delete;
  Running& operator=(const Running&) = delete;

  void stop_loaders() {
    for (const auto& loader : loaders) loader->stop();
  }

  // Any thread's. `held` keeps alive what the inputs lead to.
  StatusInputs status(std::shared_ptr<const Policy>& held) {
    StatusInputs inputs;
    inputs.now_boot_ns = boot_ns();
    inputs.started_boot_ns = started_ns;
    for (const auto& loader : loaders) inputs.loaders.push_back(loader->status());
    inputs.workers = server->worker_stats();
    inputs.accepts = &server->accept_stats();
    inputs.callers = server->admission().callers();
    inputs.log_lines_dropped = log_lines_dropped();
    {
      const std::lock_guard lock(policy_mutex);
      held = policy;
    }
    inputs.policy = held.get();
    return inputs;
  }

  // Takes over what can be changed while running. On any error nothing changes.
  void reload(const std::string& path) {
    try {
      ReloadPlan plan = plan_reload(options, Options::load(path));
      const Secrets secrets(plan.options);
      auto next = make_policy(plan.options, secrets, counters, key_sets);
      server->publish(next);
      {
        const std::lock_guard lock(policy_mutex);
        policy = next;
      }
      for (const SourceConfig& source : plan.options.sources) {
        const auto peppers = secrets.peppers_of_folder.find(source.peppers);
        if (peppers == secrets.peppers_of_folder.end()) continue;
        for (const auto& loader : loaders) {
          if (loader->database() == source.database) {
            loader->set_pepper_versions(source.name, spellings(peppers->second));
          }
        }
      }
      spdlog::set_level(spdlog::level::from_str(plan.options.log_level));
      // Only these: the server and its workers lead to the options that do not change.
      options.allow = plan.options.allow;
      options.limits = plan.options.limits;
      options.log_level = plan.options.log_level;
      for (std::size_t i = 0; i < options.sources.size(); ++i) {
        options.sources[i].jwt_secret_files = plan.options.sources[i].jwt_secret_files;
      }
      spdlog::info("reloaded: limits, log level, peppers, JWT secrets and [[allow]] rules");
      if (!plan.restart.empty()) {
        spdlog::warn("these have changed, too, and need a restart to take effect: {}",
                     fmt::join(plan.restart, ", "));
      }
    } catch (const std::exception& error) {
      spdlog::error("reload failed, everything stays as it was: {}", error.what());
    }
  }
};

// ---- watching over it

// A loader is given a resolver's longest wait (resolv.conf(5): attempts, timeout, servers), or the
// end of a load in which everything is new.
constexpr std::int64_t kLoaderPatienceNs = 60'000'000'000;

// Without a service manager's own, and for /livez.
constexpr std::int64_t kWorkerPatienceNs = 5'000'000'000;

// Whoever does not turn his loop any more, by name.
std::vector<std::string> stuck(const Running& running, std::int64_t worker_patience_ns) {
  const std::int64_t now_ns = awake_ns();
  std::vector<std::string> names = running.server->stuck_since(now_ns - worker_patience_ns);
  for (const auto& loader : running.loaders) {
    if (loader->ticked_ns() < now_ns - kLoaderPatienceNs) {
      names.push_back("loader of " + loader->database());
    }
  }
  return names;
}

// What is done every so often while callers are answered.
class Watch {
 public:
  Watch(boost::asio::io_context& io, Running& running)
      : running_(running), timer_(io), watchdog_(watchdog_period()) {
    every_ = std::chrono::seconds(1);
    if (watchdog_) every_ = std::min(every_, *watchdog_);
    turn();
  }
  void stop() { timer_.cancel(); }

 private:
  void turn() {
    feed_watchdog();
    std::shared_ptr<const Policy> held;
    const StatusInputs inputs = running_.status(held);
    shown_.show(status_line(inputs));
    for (const auto& suspect :
         guesses_.look(inputs.callers, held->limits.unknown_keys_logged, awake_ns())) {
      spdlog::warn(
          "uid {} asked for {} unknown keys within {} s: somebody guesses, or a client holds keys"
          " of another installation. `latchkey status` counts them by uid; of callers without"
          " `reasons`, refused keys are among them.",
          suspect.uid, suspect.keys, suspect.for_ns / 1'000'000'000);
    }
    timer_.expires_after(every_);
    timer_.async_wait([this](const boost::system::error_code& error) {
      if (!error) turn();
    });
  }

  void feed_watchdog() {
    // Half of the time after which the service manager would end us.
    const std::int64_t patience_ns =
        watchdog_ ? std::chrono::nanoseconds(*watchdog_).count() * 2 : kWorkerPatienceNs;
    const auto names = stuck(running_, patience_ns);
    if (names.empty()) {
      if (watchdog_) notify_alive();
    } else if (names != reported_) {
      spdlog::error("{} stuck: {}", fmt::join(names, ", "),
                    watchdog_ ? "the service manager will end and start latchkeyd"
                              : "restart latchkeyd if it does not go on by itself");
    }
    reported_ = names;
  }

  Running& running_;
  boost::asio::steady_timer timer_;
  std::optional<std::chrono::microseconds> watchdog_;
  std::chrono::microseconds every_{};
  std::vector<std::string> reported_;
  ShownStatus shown_;
  GuessWatch guesses_;
};

// Monitoring's view of it; nothing if nobody is to have one.
std::unique_ptr<HttpServer> start_http(boost::asio::io_context& io, Running& running) {
  if (!running.options.metrics.enabled()) return nullptr;
  HttpHooks hooks;
  hooks.metrics = [&running] {
    std::shared_ptr<const Policy> held;
    return metrics_text(running.status(held), read_process_facts(),
                        running.options.metrics.is_protected() ? MetricsReaders::kTrusted
                                                               : MetricsReaders::kAnybody);
  };
  hooks.stuck = [&running] { return stuck(running, kWorkerPatienceNs); };
  hooks.unready = [&running] {
    std::shared_ptr<const Policy> held;
    return unanswered_sources(running.status(held));
  };
  auto http = std::make_unique<HttpServer>(io, running.options.metrics, std::move(hooks));
  spdlog::info(
      "metrics on {}{}", http->address(),
      running.options.metrics.is_protected()
          ? ""
          : ", which anybody on this host may read: without verdicts by reason and source");
  return http;
}

// ---- the program

int run(const std::string& config_path, bool check) {
  Options options = Options::load(config_path);
  // Signals come to this thread's io_context and to no other: block them before threads exist, that
  // of the log included. One that did not block them would take a SIGHUP that comes before there is
  // a handler, and with it the daemon's end. (A check ends at once, as any command does.)
  sigset_t signals;
  sigemptyset(&signals);
  for (const int signal : {SIGTERM, SIGINT, SIGHUP}) sigaddset(&signals, signal);
  if (!check) pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  std::signal(SIGPIPE, SIG_IGN);
  start_log(options.log_level);
  keep_memory_private();
  if (options.lock_memory && !check) lock_memory();
  const std::optional<int> listening = check ? std::nullopt : passed_socket();

  Running running(std::move(options));
  // A check reports what the loaders find by itself.
  if (check) spdlog::set_level(spdlog::level::off);
  for (const auto& loader : running.loaders) loader->start();
  bool interrupted = false;
  const auto check_interrupted = [&] {
    sigset_t pending;
    sigpending(&pending);
    interrupted = sigismember(&pending, SIGTERM) == 1 || sigismember(&pending, SIGINT) == 1;
    return interrupted;
  };
  ShownStatus shown;
  const auto waiting = [&] {
    // Its own patience is `start_timeout`, of which a load takes as much as it needs.
    notify_patience(std::chrono::seconds(30));
    notify_alive();
    std::vector<LoaderStatus> statuses;
    for (const auto& loader : running.loaders) statuses.push_back(loader->status());
    shown.show(loading_line(statuses));
  };
  const FreshnessOptions& freshness = running.options.freshness;
  const auto trouble =
      wait_loaded(running.loaders, freshness.start_timeout, check, check_interrupted, waiting);
  if (check) {
    for (const auto& loader : running.loaders) {
      // What is missing is reported as such.
      (void)loader->wait_linted(
          std::chrono::duration_cast<std::chrono::milliseconds>(freshness.start_timeout));
    }
    return report_check(trouble, running.loaders);
  }
  for (const LintFinding& finding : trouble)
    spdlog::critical("{}: {}", finding.number(), finding.text);
  if (!trouble.empty()) return kExitFailure;
  if (interrupted) return 0;
  // From here on every source is loaded completely and proven to be in step.

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
                      [&status](const Rights& rights) { return status.text(rights, boot_ns()); }});
  boost::asio::io_context control;
  const std::unique_ptr<HttpServer> http = start_http(control, running);
  running.server->start(listening);
  // From here on callers are answered.

  spdlog::info(
      "latchkeyd {} serves {} sources on {}", LATCHKEY_VERSION_TEXT, running.key_sets.size(),
      listening ? "the socket that the service manager passed" : running.options.listen.socket);
  notify_ready();

  Watch watch(control, running);
  boost::asio::signal_set handled(control, SIGTERM, SIGINT, SIGHUP);
  pthread_sigmask(SIG_UNBLOCK, &signals, nullptr);
  std::function<void()> wait_signal = [&] {
    handled.async_wait([&](const boost::system::error_code& error, int signal) {
      if (error || signal != SIGHUP) {
        watch.stop();
        if (http) http->stop();
        return;
      }
      notify_reloading();
      running.reload(config_path);
      notify_ready();
      wait_signal();
    });
  };
  wait_signal();
  control.run();
  // From here on it ends: no new caller, then no caller, then no writer.

  notify_stopping();
  spdlog::info("stopping");
  running.server->stop();
  running.stop_loaders();
  spdlog::info("stopped");
  return 0;
}

// A std::terminate_handler. Want of memory in the middle of a change, which must not be left half
// done (keymap/key_set.h), ends the process: it loads everything anew when it comes back. Says so
// without taking memory, so not by the log.
[[noreturn]] void say_why_it_ends() {
  try {
    if (const auto error = std::current_exception()) std::rethrow_exception(error);
  } catch (const std::bad_alloc&) {
    constexpr std::string_view kWhy =
        "latchkeyd: not enough memory for the keys, so it ends: no change may be left half done."
        " A load takes about 150 bytes a key, and as much again for those that have changed. Give"
        " latchkeyd more (systemd: MemoryMax=), or the host.\n";
    (void)!write(STDERR_FILENO, kWhy.data(), kWhy.size());
    _exit(kExitFailure);
  } catch (...) {  // a defect: the library's own handler names it, below
  }
  __gnu_cxx::__verbose_terminate_handler();
  std::abort();
}

}  // namespace
}  // namespace latchkey

int main(int argc, char** argv) {
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
  try {
    code = latchkey::run(config_path, check);
  } catch (const latchkey::ConfigError& error) {
    std::cerr << "latchkeyd: " << latchkey::printable(error.what()) << "\n";
    code = latchkey::kExitConfiguration;
  } catch (const std::exception& error) {
    std::cerr << "latchkeyd: " << latchkey::printable(error.what()) << "\n";
  }
  latchkey::finish_log(code);
  return code;
}
