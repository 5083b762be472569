#include "daemon/status.h"

#include <unistd.h>

#include <nlohmann/json.hpp>

namespace latchkey {
namespace {

using nlohmann::ordered_json;

double seconds(std::int64_t ns) { return static_cast<double>(ns) / 1e9; }

// How answers of a source stand, in one word.
const char* source_state(std::int64_t age_ns, const FreshnessLimits& limits) {
  if (age_ns == std::numeric_limits<std::int64_t>::max()) return "loading";
  if (age_ns > limits.max_stale_ns) return "unavailable";
  return age_ns <= limits.bound_ns ? "fresh" : "stale";
}

ordered_json databases(const StatusInputs& inputs) {
  ordered_json list = ordered_json::array();
  for (const LoaderStatus& loader : inputs.loaders) {
    list.push_back({{"name", loader.database},
                    {"state", state_name(loader.state)},
                    {"since_s", seconds(inputs.now_boot_ns - loader.since_boot_ns)},
                    {"last_error", loader.last_error},
                    {"connects", loader.connects},
                    {"failures", loader.failures},
                    {"notifications", loader.notifications},
                    {"malformed_notifications", loader.malformed_notifications},
                    {"pending_ids", loader.pending_ids},
                    {"stalled_readers", loader.stalled_readers},
                    {"stalled_s", seconds(loader.stalled_ns)},
                    {"heartbeats", loader.barriers},
                    {"heartbeat_us", loader.barrier_us}});
  }
  return list;
}

template <typename Total>
std::uint64_t sum(const StatusInputs& inputs, Total total) {
  std::uint64_t value = 0;
  for (const WorkerStats* worker : inputs.workers) value += total(*worker).get();
  return value;
}

// The part that tells nothing of keys but how many and how fresh.
ordered_json restricted_sources(const StatusInputs& inputs, SourceMask allowed) {
  ordered_json list = ordered_json::array();
  const auto& routes = inputs.policy->verifier.routes();
  for (std::size_t route = 0; route < routes.size(); ++route) {
    if ((allowed & (SourceMask{1} << route)) == 0) continue;
    const std::int64_t age_ns = routes[route].keys->freshness.age_ns(inputs.now_boot_ns);
    ordered_json source = {{"name", routes[route].keys->name},
                           {"state", source_state(age_ns, inputs.policy->verifier.limits())}};
    if (routes[route].keys->freshness.ever_proven()) source["age_ms"] = age_ns / 1'000'000;
    list.push_back(source);
  }
  return list;
}

ordered_json sources(const StatusInputs& inputs) {
  ordered_json list = ordered_json::array();
  const auto& routes = inputs.policy->verifier.routes();
  for (std::size_t route = 0; route < routes.size(); ++route) {
    const KeySet& keys = *routes[route].keys;
    const std::int64_t age_ns = keys.freshness.age_ns(inputs.now_boot_ns);
    ordered_json source = {{"name", keys.name},
                           {"state", source_state(age_ns, inputs.policy->verifier.limits())}};
    if (keys.freshness.ever_proven()) source["age_ms"] = age_ns / 1'000'000;
    for (const LoaderStatus& loader : inputs.loaders) {
      for (const SourceStatus& status : loader.sources) {
        if (status.name != keys.name) continue;
        source["database"] = loader.database;
        source["keys"] = status.keys;
        source["rows"] = status.rows;
        source["keys_in_several_rows"] = status.ambiguous;
        source["loads"] = status.loads;
        source["load_rows"] = status.load_rows;
        source["load_s"] = status.load_seconds;
        source["rereads"] = status.rereads;
        source["malformed_ids"] = status.malformed_ids;
        source["memory_bytes"] = {{"records", status.memory.records},
                                  {"map", status.memory.map},
                                  {"index", status.memory.index},
                                  {"waiting", status.memory.waiting}};
        source["waiting_records"] = status.memory.waiting_records;
        ordered_json odd = ordered_json::object();
        for (std::size_t i = 0; i < kOddities; ++i) {
          if (status.oddities[i] > 0) odd[oddity_name(static_cast<Oddity>(i))] = status.oddities[i];
        }
        source["odd_rows"] = odd;
        if (!status.problems.empty()) source["problems"] = status.problems;
        if (status.last_used) {
          source["last_used"] = {{"written", status.last_used->written},
                                 {"pending", status.last_used->pending},
                                 {"deferred", status.last_used->deferred},
                                 {"dropped", status.last_used->dropped},
                                 {"failures", status.last_used->failures}};
        }
      }
    }
    source["accepted"] = sum(inputs, [route](const WorkerStats& worker) -> const Counter& {
      return worker.accepted_by_source[route];
    });
    ordered_json peppers = ordered_json::object();
    for (const std::size_t digester : routes[route].digesters) {
      const std::string& version = inputs.policy->verifier.digesters()[digester].pepper_version();
      if (version.empty()) continue;
      const std::size_t counter = inputs.policy->verifier.digesters()[digester].counter();
      peppers[version] = sum(inputs, [counter](const WorkerStats& worker) -> const Counter& {
        return worker.accepted_by_pepper[counter];
      });
    }
    if (!peppers.empty()) source["accepted_by_pepper"] = peppers;
    list.push_back(source);
  }
  return list;
}

}  // namespace

std::string status_json(const StatusInputs& inputs, const Rights& rights) {
  if (!rights.all_sources || !rights.reasons) {
    const ordered_json restricted = {
        {"version", LATCHKEY_VERSION_TEXT},
        {"uptime_s", seconds(inputs.now_boot_ns - inputs.started_boot_ns)},
        {"sources", restricted_sources(inputs, rights.sources)}};
    return restricted.dump();
  }
  ordered_json verdicts = ordered_json::object();
  for (int verdict = 0; verdict < LATCHKEY_VERDICTS; ++verdict) {
    verdicts[verdict_name(static_cast<latchkey_verdict>(verdict))] =
        sum(inputs, [verdict](const WorkerStats& worker) -> const Counter& {
          return worker.verdicts[static_cast<std::size_t>(verdict)];
        });
  }
  const auto total = [&](Counter WorkerStats::*counter) {
    return sum(inputs,
               [counter](const WorkerStats& worker) -> const Counter& { return worker.*counter; });
  };
  // In this order: a connection that ends in between must not make the difference negative.
  const std::uint64_t closed = total(&WorkerStats::connections_closed);
  const std::uint64_t opened = total(&WorkerStats::connections_opened);
  const ordered_json status = {
      {"version", LATCHKEY_VERSION_TEXT},
      {"pid", getpid()},
      {"uptime_s", seconds(inputs.now_boot_ns - inputs.started_boot_ns)},
      {"workers", inputs.workers.size()},
      {"databases", databases(inputs)},
      {"sources", sources(inputs)},
      {"requests", total(&WorkerStats::requests)},
      {"verdicts", verdicts},
      {"protocol_errors", total(&WorkerStats::protocol_errors)},
      {"connections",
       {{"open", opened - closed},
        {"accepted", inputs.accepts->accepted.get()},
        {"refused_not_allowed", inputs.accepts->refused_not_allowed.get()},
        {"refused_overloaded", inputs.accepts->refused_overloaded.get()},
        {"accept_errors", inputs.accepts->accept_errors.get()},
        {"closed_idle", total(&WorkerStats::closed_idle)},
        {"closed_stalled", total(&WorkerStats::closed_stalled)}}},
  };
  // Whatever stands in an error message of the database must not make the reply unreadable.
  return status.dump(-1, ' ', false, ordered_json::error_handler_t::replace);
}

}  // namespace latchkey
