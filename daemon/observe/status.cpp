#include "daemon/observe/status.h"

#include <unistd.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "base/clock.h"
#include "base/printable.h"
#include "base/wire_names.h"

namespace latchkey {
namespace {

using nlohmann::ordered_json;

ordered_json databases(const StatusInputs& inputs) {
  ordered_json list = ordered_json::array();
  for (const LoaderStatus& loader : inputs.loaders) {
    ordered_json database = {{"name", loader.database},
                             {"state", state_name(loader.state)},
                             {"since_s", to_seconds(inputs.now_boot_ns - loader.since_boot_ns)},
                             {"host", loader.host},
                             {"system_identifier", loader.identity.system},
                             {"timeline", loader.identity.timeline},
                             {"promotions", loader.promotions},
                             {"identity_changes", loader.identity_changes},
                             {"last_error", loader.last_error},
                             {"trouble", loader.trouble},
                             {"connects", loader.connects},
                             {"failures", loader.failures},
                             {"notifications", loader.notifications},
                             {"malformed_notifications", loader.malformed_notifications},
                             {"pending_ids", loader.pending_ids},
                             {"stalled_readers", loader.stalled_readers},
                             {"stalled_s", to_seconds(loader.stalled_ns)},
                             {"heartbeats", loader.barriers},
                             {"heartbeat_us", loader.barrier_us}};
    if (loader.queue_usage >= 0) database["notification_queue"] = loader.queue_usage;
    if (!loader.last_error.empty()) {
      database["last_error_age_s"] = to_seconds(inputs.now_boot_ns - loader.last_error_boot_ns);
    }
    list.push_back(database);
  }
  return list;
}

ordered_json callers(const StatusInputs& inputs) {
  ordered_json list = ordered_json::array();
  for (const auto& [uid, caller] : inputs.callers) {
    list.push_back({{"uid", uid},
                    {"connections", caller.connections},
                    {"waiting_bytes", caller.waiting_bytes},
                    {"refused", caller.refused},
                    {"unknown_keys", caller.unknown}});
  }
  return list;
}

template <typename Total>
std::uint64_t sum(const StatusInputs& inputs, Total total) {
  std::uint64_t value = 0;
  for (const WorkerStats* worker : inputs.workers) value += total(*worker).get();
  return value;
}

ordered_json answer_time(const StatusInputs& inputs) {
  Histogram<PlainCount> all;
  for (const WorkerStats* worker : inputs.workers) all.add(worker->answered_in);
  ordered_json bounds = ordered_json::array(), counts = ordered_json::array();
  for (const std::int64_t bound_ns : kHistogramBoundsNs) bounds.push_back(to_seconds(bound_ns));
  for (const PlainCount& count : all.buckets) counts.push_back(count.get());
  return {{"sum_s", static_cast<double>(all.sum_ns.get()) / 1e9},
          {"le_s", bounds},  // `counts` has one more entry, for longer times
          {"counts", counts}};
}

// The restricted view of the sources: name, state and age only.
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

ordered_json findings(const SourceStatus& status) {
  ordered_json list = ordered_json::array();
  for (const auto* some : {&status.problems, &status.findings}) {
    for (const Finding& finding : *some) {
      list.push_back({{"number", finding.number()},
                      {"name", finding.name()},
                      {"severity", severity_name(finding.severity())},
                      {"count", finding.count},
                      {"text", finding.text}});
    }
  }
  return list;
}

ordered_json loads_by_reason(const SourceStatus& status) {
  ordered_json reasons = ordered_json::object();
  for (std::size_t i = 0; i < kLoadReasons; ++i) {
    if (status.loads_by_reason[i] == 0) continue;
    reasons[load_reason_name(static_cast<LoadReason>(i))] = status.loads_by_reason[i];
  }
  return reasons;
}

// Adds the loader's facts on the source.
void loaded(const SourceView& view, std::int64_t now_boot_ns, ordered_json& source) {
  const SourceStatus& status = *view.status;
  source["database"] = view.loader->database;
  source["keys"] = status.keys;
  source["rows"] = status.rows;
  source["keys_in_several_rows"] = status.ambiguous;
  source["loads"] = status.loads;
  source["loads_by_reason"] = loads_by_reason(status);
  source["loading"] = status.loading;
  source["load_rows"] = status.load_rows;
  source["load_s"] = status.load_seconds;
  if (status.load_seconds > 0) {
    source["load_rows_per_s"] =
        std::llround(static_cast<double>(status.load_rows) / status.load_seconds);
  }
  if (status.rows_expected >= 0) source["rows_expected"] = std::llround(status.rows_expected);
  source["audits"] = status.audits;
  source["audits_unsure"] = status.audits_unsure;
  source["audits_undecided_in_a_row"] = status.audits_undecided_in_a_row;
  source["audits_failed"] = status.audits_failed;
  source["audit_mismatches"] = status.audit_mismatches;
  if (status.audited_boot_ns != 0) {
    source["audited_ago_s"] = to_seconds(now_boot_ns - status.audited_boot_ns);
    source["audit_s"] = status.audit_seconds;
  }
  // The time for which a change that fired no trigger may have been unseen: now, and the maximum.
  if (status.seen_boot_ns != 0) {
    const std::int64_t unseen_ns = now_boot_ns - status.seen_boot_ns;
    source["unseen_s"] = to_seconds(unseen_ns);
    source["unseen_max_s"] = to_seconds(std::max(unseen_ns, status.unseen_max_ns));
  }
  source["suspended"] = status.suspended;
  source["polled"] = status.polled;
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
  for (const Finding& problem : status.problems) source["problems"].push_back(problem.text);
  source["findings"] = findings(status);
  if (status.last_used) {
    source["last_used"] = {{"written", status.last_used->written},
                           {"pending", status.last_used->pending},
                           {"deferred", status.last_used->deferred},
                           {"dropped", status.last_used->dropped},
                           {"failures", status.last_used->failures}};
  }
}

ordered_json sources(const StatusInputs& inputs) {
  ordered_json list = ordered_json::array();
  for (const SourceView& view : source_views(inputs)) {
    ordered_json source = {{"name", view.status->name},
                           {"state", source_state_name(view.standing.state)}};
    if (view.route->keys->freshness.ever_proven()) source["age_ms"] = view.age_ns / 1'000'000;
    source["since_s"] = to_seconds(view.standing.for_ns);
    loaded(view, inputs.now_boot_ns, source);
    source["accepted"] = sum(inputs, [&view](const WorkerStats& worker) -> const Counter& {
      return worker.accepted(view.number);
    });
    ordered_json peppers = ordered_json::object(), jwt_secrets = ordered_json::object();
    for (const std::size_t digester : view.route->digesters) {
      const Digester& known = inputs.policy->verifier.digesters()[digester];
      const std::string& version = known.pepper_version();
      if (version.empty()) continue;
      const std::size_t counter = known.counter();
      (known.jwt_key() != nullptr ? jwt_secrets : peppers)[version] =
          sum(inputs, [counter](const WorkerStats& worker) -> const Counter& {
            return worker.accepted_by_pepper[counter];
          });
    }
    if (!peppers.empty()) source["accepted_by_pepper"] = peppers;
    if (!jwt_secrets.empty()) source["accepted_by_jwt_secret"] = jwt_secrets;
    list.push_back(source);
  }
  return list;
}

// The texts about tables have no length limit, but a reply has one. Counters and states always fit.
std::string fitting(ordered_json status) {
  constexpr std::size_t kBytesMax = LATCHKEY_REPLY_BYTES_MAX - LATCHKEY_HEADER_BYTES;
  const auto text = [&] {
    return status.dump(-1, ' ', false, ordered_json::error_handler_t::replace);
  };
  std::string whole = text();
  if (whole.size() <= kBytesMax) return whole;
  for (ordered_json& source : status["sources"]) {
    for (const char* part : {"problems", "findings"}) source.erase(part);
    source["left_out"] = "problems and findings are longer than a reply may be; the log has them";
  }
  return text();
}

std::uint64_t sum_of(const StatusInputs& inputs, Counter WorkerStats::*counter) {
  return sum(inputs,
             [counter](const WorkerStats& worker) -> const Counter& { return worker.*counter; });
}

ordered_json verdicts(const StatusInputs& inputs) {
  ordered_json verdicts = ordered_json::object();
  for (int verdict = 0; verdict < LATCHKEY_VERDICTS; ++verdict) {
    verdicts[verdict_name(static_cast<latchkey_verdict>(verdict))] =
        sum(inputs, [verdict](const WorkerStats& worker) -> const Counter& {
          return worker.verdicts[static_cast<std::size_t>(verdict)];
        });
  }
  return verdicts;
}

ordered_json connections(const StatusInputs& inputs) {
  // `closed` is read first: a connection that ends in between must not make the difference
  // negative.
  const std::uint64_t closed = sum_of(inputs, &WorkerStats::connections_closed);
  const std::uint64_t opened = sum_of(inputs, &WorkerStats::connections_opened);
  const AcceptStats& accepts = *inputs.accepts;
  return {{"open", opened - closed},
          {"accepted", accepts.accepted.get()},
          {"refused_not_allowed", accepts.refused_not_allowed.get()},
          {"refused_overloaded", accepts.refused_overloaded.get()},
          {"refused_uid_limit", accepts.refused_uid_limit.get()},
          {"refused_no_descriptors", accepts.refused_no_descriptors.get()},
          {"accept_errors", accepts.accept_errors.get()},
          {"closed_idle", sum_of(inputs, &WorkerStats::closed_idle)},
          {"closed_stalled", sum_of(inputs, &WorkerStats::closed_stalled)},
          {"closed_hoarding", sum_of(inputs, &WorkerStats::closed_hoarding)}};
}

ordered_json reloads(const ReloadReport& reload) {
  ordered_json json = {
      {"succeeded", reload.succeeded}, {"failed", reload.failed}, {"under_way", reload.under_way}};
  if (!reload.last_error.empty()) json["last_error"] = printable(reload.last_error);
  for (const std::string& setting : reload.need_restart) {
    json["need_restart"].push_back(printable(setting));
  }
  return json;
}

}  // namespace

std::string status_json(const StatusInputs& inputs, const Rights& rights) {
  if (!rights.whole_status()) {
    const ordered_json restricted = {
        {"version", LATCHKEY_VERSION_TEXT},
        {"uptime_s", to_seconds(inputs.now_boot_ns - inputs.started_boot_ns)},
        {"sources", restricted_sources(inputs, rights.sources)}};
    return fitting(restricted);
  }
  const auto total = [&](Counter WorkerStats::*counter) { return sum_of(inputs, counter); };
  const ordered_json status = {
      {"version", LATCHKEY_VERSION_TEXT},
      {"pid", getpid()},
      {"uptime_s", to_seconds(inputs.now_boot_ns - inputs.started_boot_ns)},
      {"workers", inputs.workers.size()},
      {"databases", databases(inputs)},
      {"sources", sources(inputs)},
      {"requests", total(&WorkerStats::requests)},
      {"verdicts", verdicts(inputs)},
      {"answer_time", answer_time(inputs)},
      {"protocol_errors", total(&WorkerStats::protocol_errors)},
      {"explained", total(&WorkerStats::explained)},
      {"refused_no_reasons", total(&WorkerStats::refused_no_reasons)},
      {"refused_operations", total(&WorkerStats::refused_operations)},
      {"connections", connections(inputs)},
      {"callers", callers(inputs)},
      {"log_lines_dropped", inputs.log_lines_dropped},
      {"reloads", reloads(inputs.reload)},
      {"socket_in_place", inputs.socket_in_place},
  };
  // fitting() replaces invalid UTF-8 and limits the length, because the texts include the
  // database's error messages.
  return fitting(status);
}

}  // namespace latchkey
