// latchkeyd: this file is the order of things. Each milestone says what is true from there on; the
// end mirrors the beginning.

#include <sys/prctl.h>
#include <sys/resource.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <array>
#include <boost/asio/io_context.hpp>
#include <boost/asio/signal_set.hpp>
#include <csignal>
#include <iostream>
#include <mutex>

#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>

#include "daemon/assembly.h"
#include "daemon/options.h"
#include "daemon/server.h"
#include "daemon/status.h"
#include "keymap/clock.h"
#include "loader/loader.h"

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

void start_log(const std::string& level) {
  // Under systemd, journald stamps each line with the time.
  const bool journal = std::getenv("JOURNAL_STREAM") != nullptr;
  auto log = spdlog::stderr_color_mt("latchkeyd");
  log->set_pattern(journal ? "%l: %v" : "%Y-%m-%dT%H:%M:%S.%eZ %l: %v",
                   spdlog::pattern_time_type::utc);
  log->set_level(spdlog::level::from_str(level));
  log->flush_on(spdlog::level::trace);
  spdlog::set_default_logger(log);
}

// ---- waiting for the first load

// What is wrong, for people; empty if everything is loaded. Trouble that may pass (a database that
// is still starting) is given `start_timeout`; a load under way is given its time.
std::vector<LintFinding> wait_loaded(const std::vector<std::unique_ptr<Loader>>& loaders,
                                     std::chrono::nanoseconds patience, bool first_attempt_only,
                                     const std::function<bool()>& interrupted) {
  std::vector<LintFinding> trouble;
  for (const auto& loader : loaders) {
    std::int64_t deadline_ns = boot_ns() + patience.count();
    for (;;) {
      const auto unready = loader->wait_ready(std::chrono::milliseconds(100), first_attempt_only);
      if (!unready || interrupted()) break;
      const LoaderStatus status = loader->status();
      if (status.state == Refresh::State::kLoading) deadline_ns = boot_ns() + patience.count();
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
              << ": " << where << finding.text << "\n\n";
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

// ---- reload

// Takes over what can be changed while running: peppers, JWT secrets and who may ask. On any error
// nothing changes.
void reload(const std::string& path, const Options& running, Server& server,
            const std::vector<std::unique_ptr<Loader>>& loaders,
            const std::vector<std::unique_ptr<KeySet>>& key_sets, PepperCounters& counters,
            std::shared_ptr<const Policy>& policy, std::mutex& policy_mutex) {
  try {
    const Options fresh = Options::load(path);
    const auto same_name = [](const SourceConfig& a, const SourceConfig& b) {
      return a.name == b.name && a.peppers == b.peppers &&
             a.jwt_secret_files.empty() == b.jwt_secret_files.empty();
    };
    if (!std::ranges::equal(fresh.sources, running.sources, same_name)) {
      throw ConfigError(
          "sources were added, removed or pointed at other peppers, which needs a"
          " restart.");
    }
    Options merged = running;
    merged.allow = fresh.allow;
    for (std::size_t i = 0; i < merged.sources.size(); ++i) {
      merged.sources[i].jwt_secret_files = fresh.sources[i].jwt_secret_files;
    }
    const Secrets secrets(merged);
    auto next = make_policy(merged, secrets, counters, key_sets);
    server.publish(next);
    {
      const std::lock_guard lock(policy_mutex);
      policy = next;
    }
    for (const SourceConfig& source : running.sources) {
      const auto peppers = secrets.peppers_of_folder.find(source.peppers);
      if (peppers == secrets.peppers_of_folder.end()) continue;
      for (const auto& loader : loaders) {
        if (loader->database() == source.database) {
          loader->set_pepper_versions(source.name, spellings(peppers->second));
        }
      }
    }
    spdlog::info(
        "reloaded peppers, JWT secrets and [[allow]] rules; other settings need a restart");
  } catch (const std::exception& error) {
    spdlog::error("reload failed, everything stays as it was: {}", error.what());
  }
}

// ---- the program

int run(const std::string& config_path, bool check) {
  const Options options = Options::load(config_path);
  start_log(options.log_level);
  keep_memory_private();
  const std::int64_t started_ns = boot_ns();

  // Signals come to this thread's io_context and to no other: block them before threads exist.
  sigset_t signals;
  sigemptyset(&signals);
  for (const int signal : {SIGTERM, SIGINT, SIGHUP}) sigaddset(&signals, signal);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  std::signal(SIGPIPE, SIG_IGN);

  // Order of destruction is the reverse: server (readers) before loaders (writers) before key sets.
  // Loaders look at one another's key sets, so all of them stop before the first one goes.
  Quiescence quiescence;
  std::vector<std::unique_ptr<KeySet>> key_sets;
  for (const SourceConfig& source : options.sources) {
    key_sets.push_back(std::make_unique<KeySet>(source.name, quiescence));
    if (source.column(Role::kLastUsedAt) == nullptr) continue;
    key_sets.back()->uses = std::make_unique<UseLog>(options.listen.workers);
  }
  std::vector<std::unique_ptr<Loader>> loaders;
  const std::unique_ptr<decltype(loaders), void (*)(decltype(loaders)*)> stop_loaders(
      &loaders, [](auto* all) {
        for (const auto& loader : *all) loader->stop();
      });
  PepperCounters counters;
  std::shared_ptr<const Policy> policy;
  std::mutex policy_mutex;
  {
    const Secrets secrets(options);
    policy = make_policy(options, secrets, counters, key_sets);
    loaders = make_loaders(options, secrets, quiescence, key_sets);
  }
  // From here on peppers are only in keyed hash states, and passwords with the loaders, who need
  // them to connect again.

  // A check reports what the loaders find by itself.
  if (check) spdlog::set_level(spdlog::level::off);
  for (const auto& loader : loaders) loader->start();
  bool interrupted = false;
  const auto check_interrupted = [&] {
    sigset_t pending;
    sigpending(&pending);
    interrupted = sigismember(&pending, SIGTERM) == 1 || sigismember(&pending, SIGINT) == 1;
    return interrupted;
  };
  const auto trouble =
      wait_loaded(loaders, options.freshness.start_timeout, check, check_interrupted);
  if (check) {
    for (const auto& loader : loaders) {
      // What is missing is reported as such.
      (void)loader->wait_linted(
          std::chrono::duration_cast<std::chrono::milliseconds>(options.freshness.start_timeout));
    }
    return report_check(trouble, loaders);
  }
  for (const LintFinding& finding : trouble)
    spdlog::critical("{}: {}", finding.number(), finding.text);
  if (!trouble.empty()) return kExitFailure;
  if (interrupted) return 0;
  // From here on every source is loaded completely and proven to be in step.

  Syncs syncs(options, loaders);
  Server* server_for_status = nullptr;
  const auto current_status = [&](const Rights& rights) {
    StatusInputs inputs;
    inputs.now_boot_ns = boot_ns();
    inputs.started_boot_ns = started_ns;
    for (const auto& loader : loaders) inputs.loaders.push_back(loader->status());
    inputs.workers = server_for_status->worker_stats();
    inputs.accepts = &server_for_status->accept_stats();
    std::shared_ptr<const Policy> held;
    {
      const std::lock_guard lock(policy_mutex);
      held = policy;
    }
    inputs.policy = held.get();
    return status_json(inputs, rights);
  };
  Server server(options, policy, quiescence,
                {.start_sync =
                     [&](SourceMask sources, std::function<void()> done) {
                       return syncs.start(sources, std::move(done));
                     },
                 .status_json = current_status});
  server_for_status = &server;
  server.start();
  // From here on callers are answered.

  spdlog::info("latchkeyd {} serves {} sources on {}", LATCHKEY_VERSION_TEXT, key_sets.size(),
               options.listen.socket);
  sd_notify(0, "READY=1\nSTATUS=Serving");

  boost::asio::io_context control;
  boost::asio::signal_set handled(control, SIGTERM, SIGINT, SIGHUP);
  pthread_sigmask(SIG_UNBLOCK, &signals, nullptr);
  std::function<void()> wait_signal = [&] {
    handled.async_wait([&](const boost::system::error_code& error, int signal) {
      if (error || signal != SIGHUP) return;
      sd_notify(0, "RELOADING=1");
      reload(config_path, options, server, loaders, key_sets, counters, policy, policy_mutex);
      sd_notify(0, "READY=1");
      wait_signal();
    });
  };
  wait_signal();
  control.run();
  // From here on it ends: no new caller, then no caller, then no writer.

  sd_notify(0, "STOPPING=1\nSTATUS=Answering what has arrived");
  spdlog::info("stopping");
  server.stop();
  for (const auto& loader : loaders) loader->stop();
  spdlog::info("stopped");
  return 0;
}

}  // namespace
}  // namespace latchkey

int main(int argc, char** argv) {
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
  try {
    return latchkey::run(config_path, check);
  } catch (const latchkey::ConfigError& error) {
    std::cerr << "latchkeyd: " << error.what() << "\n";
    return latchkey::kExitConfiguration;
  } catch (const std::exception& error) {
    std::cerr << "latchkeyd: " << error.what() << "\n";
    return latchkey::kExitFailure;
  }
}
