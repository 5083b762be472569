#include "config/reload_plan.h"

#include <algorithm>

namespace latchkey {
namespace {

class Differences {
 public:
  template <typename T>
  void compare(const T& running, const T& fresh, const char* name) {
    if (!(running == fresh)) names_.emplace_back(name);
  }
  void add(std::string name) { names_.push_back(std::move(name)); }
  std::vector<std::string> take() { return std::move(names_); }

 private:
  std::vector<std::string> names_;
};

const SourceConfig* named(const std::vector<SourceConfig>& sources, const std::string& name) {
  const auto found = std::ranges::find(sources, name, &SourceConfig::name);
  return found == sources.end() ? nullptr : &*found;
}

// True if the sources differ in nothing that needs a restart. A running source may replace its
// secrets; it can neither start nor stop using secrets.
bool alike(const SourceConfig& running, const SourceConfig& fresh) {
  if (running.jwt_secret_files.empty() != fresh.jwt_secret_files.empty()) return false;
  SourceConfig as_running = fresh;
  as_running.jwt_secret_files = running.jwt_secret_files;
  return as_running == running;
}

}  // namespace

ReloadPlan plan_reload(const Options& running, const Options& fresh) {
  Differences differ;
  differ.compare(running.listen.socket, fresh.listen.socket, "[listen] socket");
  differ.compare(running.listen.mode, fresh.listen.mode, "[listen] mode");
  differ.compare(running.listen.group, fresh.listen.group, "[listen] group");
  differ.compare(running.listen.workers, fresh.listen.workers, "[listen] workers");
  differ.compare(running.listen.busy_poll, fresh.listen.busy_poll, "[listen] busy_poll");
  differ.compare(running.metrics, fresh.metrics, "[metrics]");
  differ.compare(running.lock_memory, fresh.lock_memory, "[memory] lock");
  differ.compare(running.freshness.heartbeat, fresh.freshness.heartbeat, "[freshness] heartbeat");
  differ.compare(running.freshness.bound, fresh.freshness.bound, "[freshness] bound");
  differ.compare(running.freshness.max_stale, fresh.freshness.max_stale, "[freshness] max_stale");
  differ.compare(running.freshness.audit, fresh.freshness.audit, "[freshness] audit");
  differ.compare(running.last_used, fresh.last_used, "[last_used] flush");
  differ.compare(running.databases, fresh.databases, "[[database]]");

  for (const SourceConfig& source : running.sources) {
    const SourceConfig* now = named(fresh.sources, source.name);
    if (now == nullptr || !alike(source, *now)) differ.add("[[source]] \"" + source.name + "\"");
  }
  for (const SourceConfig& source : fresh.sources) {
    if (named(running.sources, source.name) == nullptr) {
      differ.add("[[source]] \"" + source.name + "\"");
    }
  }
  const auto names_of = [](const Options& options) {
    std::vector<std::string> names;
    for (const SourceConfig& source : options.sources) names.push_back(source.name);
    return names;
  };
  std::vector<std::string> before = names_of(running), after = names_of(fresh);
  if (before != after && std::ranges::is_permutation(before, after)) {
    differ.add("the order of [[source]]");
  }

  ReloadPlan plan{running, differ.take()};
  plan.options.limits = fresh.limits;
  plan.options.log_level = fresh.log_level;
  plan.options.allow = fresh.allow;
  for (const AllowOptions& rule : fresh.allow) {
    for (const std::string& name : rule.sources) {
      if (named(running.sources, name) != nullptr) continue;
      throw ConfigError("an [[allow]] rule names source \"" + name +
                        "\", which is new and needs a restart.");
    }
  }
  for (SourceConfig& source : plan.options.sources) {
    const SourceConfig* now = named(fresh.sources, source.name);
    if (now != nullptr && alike(source, *now)) source.jwt_secret_files = now->jwt_secret_files;
  }
  return plan;
}

}  // namespace latchkey
