#include "daemon/running.h"

#include <spdlog/fmt/ranges.h>
#include <spdlog/spdlog.h>
#include <atomic>
#include <cstdlib>
#include <thread>
#include <utility>

#include "daemon/exit_status.h"
#include "daemon/log.h"

namespace latchkey {
namespace {

// Every wait of a stopping loader has a shorter deadline, unless a call of the system hangs.
constexpr auto kStopPatience = std::chrono::seconds(5);
constexpr auto kStopPoll = std::chrono::milliseconds(5);

}  // namespace

Running::Running(Options from, const Secrets& secrets, std::vector<std::string>& failures)
    : options(std::move(from)), reasons(failures) {
  for (const SourceConfig& source : options.sources) {
    key_sets.push_back(std::make_unique<KeySet>(source.name, quiescence));
    if (source.column(Role::kLastUsedAt) == nullptr) continue;
    key_sets.back()->uses = std::make_unique<UseLog>(options.listen.workers);
  }
  policy = make_policy(options, secrets, counters, key_sets);
  loaders = make_loaders(options, secrets, quiescence, key_sets);
  // From here on peppers exist only as keyed hash states. Loaders read passwords from their files
  // at each connect.
}

Running::~Running() {
  server.reset();
  stop_loaders(kExitFailure);
}

void Running::stop_loaders(int exit_code) {
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

StatusInputs Running::status(std::shared_ptr<const Policy>& held) {
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

void Running::take_over(const ReloadPlan& plan, const Secrets& secrets) {
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
  // Only these options are assigned: the server and its workers refer to the other ones.
  options.allow = plan.options.allow;
  options.limits = plan.options.limits;
  options.log_level = plan.options.log_level;
  for (std::size_t i = 0; i < options.sources.size(); ++i) {
    options.sources[i].jwt_secret_files = plan.options.sources[i].jwt_secret_files;
  }
}

bool Running::last_reload_failed() {
  const std::lock_guard lock(policy_mutex);
  return !reload_report.last_error.empty();
}

void Running::reload_begun() {
  const std::lock_guard lock(policy_mutex);
  reload_report.under_way = true;
}

void Running::reloaded(const std::string& error, std::vector<std::string> need_restart,
                       bool another) {
  const std::lock_guard lock(policy_mutex);
  reload_report.under_way = another;
  ++(error.empty() ? reload_report.succeeded : reload_report.failed);
  reload_report.last_error = error;
  if (error.empty()) reload_report.need_restart = std::move(need_restart);
}

Syncs::Syncs(const Options& options, const std::vector<std::unique_ptr<Loader>>& loaders)
    : loaders_(loaders) {
  for (const auto& loader : loaders) {
    SourceMask mask = 0;
    for (std::size_t i = 0; i < options.sources.size(); ++i) {
      if (options.sources[i].database == loader->database()) mask |= SourceMask{1} << i;
    }
    masks_.push_back(mask);
  }
}

std::function<void()> Syncs::start(SourceMask sources, std::function<void()> done) {
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
  one_done();  // releases the initial count, which kept it above zero during the loop
  return [asked] {
    for (const auto& [loader, id] : asked) loader->abandon_sync(id);
  };
}

}  // namespace latchkey
