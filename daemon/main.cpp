// latchkeyd: this file is the order of things. Each milestone says what is true from there on; the
// end mirrors the beginning.

#include <spdlog/fmt/ranges.h>
#include <spdlog/spdlog.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
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
#include <span>
#include <string_view>
#include <system_error>
#include <thread>
#include <utility>

#include "daemon/aside.h"
#include "daemon/assembly.h"
#include "daemon/guess_watch.h"
#include "daemon/http.h"
#include "daemon/log.h"
#include "daemon/metrics.h"
#include "daemon/options.h"
#include "daemon/reload.h"
#include "daemon/server.h"
#include "daemon/service.h"
#include "daemon/status.h"
#include "daemon/status_cache.h"
#include "keymap/clock.h"
#include "loader/loader.h"
#include "protocol/printable.h"
#include "protocol/standard_files.h"

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
      const bool goes_on = status.state == Refresh::State::kLoading || status.queue_in_the_way;
      if (goes_on) deadline_ns = boot_ns() + patience.count();
      waiting();
      const bool failed_once = first_attempt_only && status.rounds_failed > 0;
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

// Whatever a loader waits for when it is to end has shorter deadlines, unless the system's code
// hangs.
constexpr auto kStopPatience = std::chrono::seconds(5);
constexpr auto kStopPoll = std::chrono::milliseconds(5);

// Everything that answers are made of. Parts are destroyed in the reverse order: the server
// (readers) before the loaders (writers) before the key sets.
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

  Running(Options from, const Secrets& secrets, std::vector<std::string>& failures)
      : options(std::move(from)), reasons(failures) {
    for (const SourceConfig& source : options.sources) {
      key_sets.push_back(std::make_unique<KeySet>(source.name, quiescence));
      if (source.column(Role::kLastUsedAt) == nullptr) continue;
      key_sets.back()->uses = std::make_unique<UseLog>(options.listen.workers);
    }
    policy = make_policy(options, secrets, counters, key_sets);
    loaders = make_loaders(options, secrets, quiescence, key_sets);
    // From here on peppers are only in keyed hash states. Passwords are read again from their files
    // whenever a loader connects.
  }
  // Loaders look at one another's key sets, so all of them stop before the first one goes.
  ~Running() {
    server.reset();
    stop_loaders(kExitFailure);
  }
  Running(const Running&) = delete;
  Running& operator=(const Running&) = delete;

  // If one of them hangs, the process ends here, with `exit_code`.
  void stop_loaders(int exit_code) {
    for (const auto& loader : loaders) loader->request_stop();
    const auto hangs = [this] {
      std::vector<std::string> names;
      for (const auto& loader : loaders) {
        if (!loader->ended()) names.push_back(loader->database());
      }
      return names;
    };
    const auto deadline = std::chrono::steady_clock::now() + kStopPatience;
    while (!hangs().empty() && std::chrono::steady_clock::now() < deadline) {
      std::this_thread::sleep_for(kStopPoll);
    }
    if (const auto names = hangs(); !names.empty()) {
      spdlog::warn(
          "what reads the database {} hangs, so latchkeyd ends without it: does a name service, or"
          " the file system of a `password_file`, not answer?",
          fmt::join(names, ", "));
      finish_log(exit_code, reasons);
      std::_Exit(exit_code);
    }
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
    inputs.socket_in_place = server->socket_in_place();
    inputs.connections_max = server->admission().limits().connections;
    {
      const std::lock_guard lock(policy_mutex);
      held = policy;
      inputs.reload = reload_report;
    }
    inputs.policy = held.get();
    return inputs;
  }

  // Takes over what can be changed while running. If it throws, nothing has changed.
  void take_over(const ReloadPlan& plan, const Secrets& secrets) {
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
  }

  bool last_reload_failed() {
    const std::lock_guard lock(policy_mutex);
    return !reload_report.last_error.empty();
  }
  void reload_begun() {
    const std::lock_guard lock(policy_mutex);
    reload_report.under_way = true;
  }
  // An empty error: it succeeded. `another`: one more follows at once.
  void reloaded(const std::string& error, bool another) {
    const std::lock_guard lock(policy_mutex);
    reload_report.under_way = another;
    ++(error.empty() ? reload_report.succeeded : reload_report.failed);
    reload_report.last_error = error;
  }
};

// ---- reloads

// What a reload reads. A name service or a file may hang, and must hold up neither the watchdog's
// feeding nor SIGTERM: so it is read aside, and given up after a while.
struct Reading {
  ReloadPlan plan;
  Secrets secrets;

  Reading(const Options& running, const std::string& path)
      : plan(plan_reload(running, Options::load(path))), secrets(plan.options) {}
};

constexpr auto kReadPatience = std::chrono::seconds(10);
constexpr auto kReadPoll = std::chrono::milliseconds(5);

class Reloads {
 public:
  Reloads(boost::asio::io_context& io, Running& running, std::string path)
      : running_(running), path_(std::move(path)), timer_(io) {}
  // A handler that waits to run would go on as if it had not been cancelled.
  void stop() {
    stopped_ = true;
    timer_.cancel();
  }

  // Requests that come while one is under way are one more, after it.
  void request() {
    if (under_way_) {
      again_ = true;
      return;
    }
    under_way_ = true;
    running_.reload_begun();
    notify_reloading();
    if (reading_ && !reading_->done()) {
      return finish("what an earlier reload reads (a file, a name service) still hangs");
    }
    try {
      reading_.emplace([options = running_.options, path = path_] {
        return std::make_shared<const Reading>(options, path);
      });
    } catch (const std::exception& error) {  // no thread, or no memory
      return finish(error.what());
    }
    deadline_ = std::chrono::steady_clock::now() + kReadPatience;
    wait();
  }

 private:
  void wait() {
    timer_.expires_after(kReadPoll);
    timer_.async_wait([this](const boost::system::error_code& cancelled) {
      if (cancelled || stopped_) return;
      if (reading_->done()) return read();
      if (std::chrono::steady_clock::now() < deadline_) return wait();
      reading_->abandon();
      finish(
          "the configuration and its secrets could not be read within 10 s: does a name service"
          " or a file system hang?");
    });
  }

  void read() {
    std::string error;
    try {
      const auto reading = reading_->take();
      reading_.reset();
      running_.take_over(reading->plan, reading->secrets);
      spdlog::info("reloaded: limits, log level, peppers, JWT secrets and [[allow]] rules");
      if (!reading->plan.restart.empty()) {
        spdlog::warn("these have changed, too, and need a restart to take effect: {}",
                     fmt::join(reading->plan.restart, ", "));
      }
    } catch (const std::exception& caught) {
      reading_.reset();
      error = caught.what();
    }
    finish(error);
  }

  void finish(const std::string& error) {
    if (!error.empty()) spdlog::error("reload failed, everything stays as it was: {}", error);
    under_way_ = false;
    running_.reloaded(error, again_);
    notify_ready();
    if (std::exchange(again_, false)) request();
  }

  Running& running_;
  const std::string path_;
  boost::asio::steady_timer timer_;
  std::optional<Aside<Reading>> reading_;
  std::chrono::steady_clock::time_point deadline_;
  bool under_way_ = false;
  bool again_ = false;
  bool stopped_ = false;
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
  void stop() {
    stopped_ = true;
    timer_.cancel();
  }

 private:
  void turn() {
    if (stopped_) return;  // the handler was waiting to run
    feed_watchdog();
    std::shared_ptr<const Policy> held;
    const StatusInputs inputs = running_.status(held);
    shown_.show(status_line(inputs));
    if (std::exchange(in_place_, inputs.socket_in_place) && !in_place_) {
      spdlog::error(
          "the socket {} is gone, or another file stands there: no new caller finds latchkeyd."
          " Restart it, and find out who cleans that folder.",
          running_.options.listen.socket);
    }
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
  bool in_place_ = true;
  bool stopped_ = false;
  GuessWatch guesses_;
};

constexpr const char* kSocketGone = "the socket's file is gone: no new caller finds latchkeyd";

// Monitoring's view of it; nothing if nobody is to have one.
std::unique_ptr<HttpServer> start_http(boost::asio::io_context& io, Running& running) {
  if (!running.options.metrics.enabled()) return nullptr;
  HttpHooks hooks;
  hooks.metrics = [&running] {
    std::shared_ptr<const Policy> held;
    ProcessFacts facts = read_process_facts();
    facts.started_unix_s = running.started_unix_s;
    return metrics_text(running.status(held), facts,
                        running.options.metrics.is_protected() ? MetricsReaders::kTrusted
                                                               : MetricsReaders::kAnybody);
  };
  hooks.stuck = [&running] { return stuck(running, kWorkerPatienceNs); };
  hooks.unready = [&running] {
    std::shared_ptr<const Policy> held;
    const StatusInputs inputs = running.status(held);
    auto trouble = unanswered_sources(inputs);
    if (!inputs.socket_in_place) trouble.emplace_back(kSocketGone);
    return trouble;
  };
  hooks.remarks = [&running] {
    std::vector<std::string> remarks;
    if (running.last_reload_failed()) {
      remarks.emplace_back("the last reload failed: what runs is the configuration before it");
    }
    return remarks;
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

constexpr std::array kEnds = {SIGTERM, SIGINT, SIGQUIT};

bool is_pending(std::span<const int> signals) {
  sigset_t pending;
  sigpending(&pending);
  return std::ranges::any_of(signals,
                             [&](int signal) { return sigismember(&pending, signal) == 1; });
}

// Null: somebody wants an end before they are read.
std::shared_ptr<const Secrets> read_secrets(const Options& options) {
  const Aside<Secrets> reading([options] { return std::make_shared<const Secrets>(options); });
  const auto deadline = std::chrono::steady_clock::now() + options.freshness.start_timeout;
  while (!reading.done()) {
    if (is_pending(kEnds)) return nullptr;
    if (std::chrono::steady_clock::now() >= deadline) {
      throw std::runtime_error(
          "the secrets could not be read within `start_timeout`: does the file system of a pepper"
          " or a JWT secret hang?");
    }
    std::this_thread::sleep_for(kReadPoll);
  }
  return reading.take();
}

// `reasons` are for finish_log().
int run(const std::string& config_path, bool check, std::vector<std::string>& reasons) {
  Options options = Options::load(config_path);
  // Signals come to this thread's io_context and to no other: block them before threads exist, that
  // of the log included. One that did not block them would take a SIGHUP that comes before there is
  // a handler, and with it the daemon's end. (A check ends at once, as any command does.)
  sigset_t signals;
  sigemptyset(&signals);
  for (const int signal : {SIGTERM, SIGINT, SIGHUP, SIGQUIT}) sigaddset(&signals, signal);
  if (!check) pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  // Whatever else ends a process by default (signal(7)) and may come by mistake: nothing must be
  // cut off in the middle.
  for (const int signal : {SIGPIPE, SIGUSR1, SIGUSR2, SIGALRM, SIGVTALRM, SIGPROF, SIGIO}) {
    std::signal(signal, SIG_IGN);
  }
  start_log(options.log_level);
  keep_memory_private();
  if (options.lock_memory && !check) lock_memory();
  const std::optional<int> listening = check ? std::nullopt : passed_socket();

  auto secrets = read_secrets(options);
  if (secrets == nullptr) return 0;
  Running running(std::move(options), *secrets, reasons);
  secrets.reset();
  // A check reports what the loaders find by itself.
  if (check) spdlog::set_level(spdlog::level::off);
  for (const auto& loader : running.loaders) loader->start();
  bool interrupted = false;
  const auto check_interrupted = [&] { return interrupted = is_pending(kEnds); };
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
  for (const LintFinding& finding : trouble) {
    reasons.push_back(fmt::format("{}: {}", finding.number(), finding.text));
  }
  if (!trouble.empty()) return kExitFailure;
  if (interrupted) {
    running.stop_loaders(0);
    return 0;
  }
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
  // From here on it ends: no new caller, then no caller, then no writer.

  notify_stopping();
  spdlog::info("stopping");
  running.server->stop();
  running.stop_loaders(0);
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
  // Behind all that was logged.
  if (!why.empty()) latchkey::write_to_stderr("latchkeyd: " + latchkey::printable(why) + "\n");
  return code;
}
