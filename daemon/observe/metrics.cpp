#include "daemon/observe/metrics.h"

#include <prometheus/metric_family.h>
#include <prometheus/text_serializer.h>

#include <algorithm>
#include <chrono>
#include <initializer_list>
#include <utility>

#include "base/clock.h"
#include "base/printable.h"
#include "base/wire_names.h"

namespace latchkey {
namespace {

using prometheus::ClientMetric;
using prometheus::MetricFamily;
using prometheus::MetricType;

using Views = std::vector<SourceView>;
using Labels = std::initializer_list<std::pair<const char*, std::string>>;

template <typename Number>
double number(Number value) {
  return static_cast<double>(value);
}

// One metric; it has one line for each set of labels.
class Family {
 public:
  Family(std::vector<MetricFamily>& all, MetricType type, const char* name, const char* help)
      : all_(all), index_(all.size()) {
    all_.push_back({name, help, type, {}});
  }
  void add(double value, Labels labels = {}) {
    ClientMetric& metric = add(labels);
    metric.counter.value = metric.gauge.value = value;
  }
  void add(const Histogram<PlainCount>& counts, Labels labels = {}) {
    auto& histogram = add(labels).histogram;
    for (std::size_t i = 0; i < counts.buckets.size(); ++i) {
      histogram.sample_count += counts.buckets[i].get();
      if (i == kHistogramBoundsNs.size()) break;  // the serializer adds the bucket "+Inf"
      histogram.bucket.push_back({histogram.sample_count, to_seconds(kHistogramBoundsNs[i])});
    }
    histogram.sample_sum = number(counts.sum_ns.get()) / 1e9;
  }

 private:
  ClientMetric& add(Labels labels) {
    ClientMetric& metric = all_[index_].metric.emplace_back();
    for (const auto& [name, value] : labels) metric.label.push_back({name, printable(value)});
    return metric;
  }
  std::vector<MetricFamily>& all_;
  std::size_t index_;
};

class Metrics {
 public:
  Metrics(const StatusInputs& inputs, const ProcessFacts& facts, MetricsReaders readers)
      : inputs_(inputs), facts_(facts), trusted_(readers == MetricsReaders::kTrusted) {}

  std::string text() {
    process_facts();
    answers();
    if (trusted_) verdicts();
    connections();
    callers();
    databases();
    sources();
    return prometheus::TextSerializer().Serialize(all_);
  }

 private:
  Family counter(const char* name, const char* help) {
    return {all_, MetricType::Counter, name, help};
  }
  Family gauge(const char* name, const char* help) { return {all_, MetricType::Gauge, name, help}; }

  template <typename Pick>
  double total(Pick pick) const {
    double sum = 0;
    for (const WorkerStats* worker : inputs_.workers) sum += number(pick(*worker).get());
    return sum;
  }

  // ---- the daemon

  void process_facts() {
    gauge("latchkey_build_info", "Always 1; the label says which version runs.")
        .add(1, {{"version", LATCHKEY_VERSION_TEXT}});
    gauge("latchkey_workers", "Threads that answer.").add(number(inputs_.workers.size()));
    gauge("process_resident_memory_bytes", "Memory that latchkeyd has in use.")
        .add(facts_.resident_bytes);
    counter("process_cpu_seconds_total", "Processor time that latchkeyd has used.")
        .add(facts_.cpu_seconds);
    gauge("process_open_fds", "File descriptors that latchkeyd has open.").add(facts_.open_fds);
    gauge("process_max_fds", "File descriptors that it may open.").add(facts_.max_fds);
    gauge("process_start_time_seconds", "When it was started, in seconds since 1970.")
        .add(facts_.started_unix_s);
    counter("latchkey_log_lines_dropped_total",
            "Lines of the log that are lost: not taken in time, or not to be written.")
        .add(number(inputs_.log_lines_dropped));
    Family reloads = counter("latchkey_reloads_total", "By result.");
    reloads.add(number(inputs_.reload.succeeded), {{"result", "succeeded"}});
    reloads.add(number(inputs_.reload.failed), {{"result", "failed"}});
    gauge("latchkey_last_reload_successful", "0: the configuration that runs is an older one.")
        .add(inputs_.reload.last_error.empty() ? 1 : 0);
    gauge("latchkey_socket_in_place", "0: the socket's file is gone, and nobody finds latchkeyd.")
        .add(inputs_.socket_in_place ? 1 : 0);
  }

  void answers() {
    counter("latchkey_requests_total",
            "Requests understood: verify (of any number of keys) and all others.")
        .add(total([](const WorkerStats& w) -> const Counter& { return w.requests; }));
    counter("latchkey_protocol_errors_total", "Requests that could not be understood.")
        .add(total([](const WorkerStats& w) -> const Counter& { return w.protocol_errors; }));
    Family refused =
        counter("latchkey_requests_refused_total",
                "Requests that the caller's [[allow]] rule does not permit, by reason.");
    refused.add(total([](const WorkerStats& w) -> const Counter& { return w.refused_no_reasons; }),
                {{"reason", "no_reasons"}});
    refused.add(total([](const WorkerStats& w) -> const Counter& { return w.refused_operations; }),
                {{"reason", "operation"}});
    double told = 0;
    for (std::size_t v = 0; v < LATCHKEY_VERDICTS; ++v) told += told_as(v);
    const double active = told_as(LATCHKEY_VALID), unavailable = told_as(LATCHKEY_UNAVAILABLE);
    Family answers = counter("latchkey_answers_total", "Keys answered for, as it was told.");
    answers.add(active, {{"outcome", "active"}});
    answers.add(told - active - unavailable, {{"outcome", "inactive"}});
    answers.add(unavailable, {{"outcome", "unavailable"}});
    Histogram<PlainCount> answered;
    for (const WorkerStats* worker : inputs_.workers) answered.add(worker->answered_in);
    Family(all_, MetricType::Histogram, "latchkey_answer_duration_seconds",
           "From noticing that a connection has sent something, one request or many, until the"
           " replies to all of it are with the kernel. sync is left out.")
        .add(answered);
  }

  [[nodiscard]] double told_as(std::size_t verdict) const {
    return total([&](const WorkerStats& w) -> const Counter& { return w.told[verdict]; });
  }

  void verdicts() {
    Family verdicts = counter(
        "latchkey_verdicts_total",
        "Keys asked for, by verdict as found (not as told) and by the source whose row spoke; the"
        " source is empty where none did.");
    const auto& routes = inputs_.policy->verifier.routes();
    const auto add = [&](std::size_t spoke, const std::string& source) {
      for (std::size_t v = 0; v < LATCHKEY_VERDICTS; ++v) {
        verdicts.add(
            total([&](const WorkerStats& w) -> const Counter& {
              return w.verdicts_by_source[spoke][v];
            }),
            {{"source", source}, {"verdict", verdict_name(static_cast<latchkey_verdict>(v))}});
      }
    };
    for (std::size_t route = 0; route < routes.size(); ++route) {
      add(route, routes[route].keys->name);
    }
    add(WorkerStats::kNoSource, "");
    Family peppers = counter("latchkey_accepted_by_secret_total",
                             "Keys accepted, by pepper version or JWT secret.");
    for (const Route& route : routes) {
      for (const std::size_t digester : route.digesters) {
        const Digester& known = inputs_.policy->verifier.digesters()[digester];
        if (known.pepper_version().empty()) continue;
        peppers.add(total([&](const WorkerStats& w) -> const Counter& {
                      return w.accepted_by_pepper[known.counter()];
                    }),
                    {{"source", route.keys->name}, {"secret", known.pepper_version()}});
      }
    }
  }

  void connections() {
    const double closed =
        total([](const WorkerStats& w) -> const Counter& { return w.connections_closed; });
    const double opened =
        total([](const WorkerStats& w) -> const Counter& { return w.connections_opened; });
    gauge("latchkey_connections", "Open now.").add(std::max(0.0, opened - closed));
    gauge("latchkey_connections_max",
          "The limit in force: `connections`, or what there are descriptors for.")
        .add(number(inputs_.connections_max));
    counter("latchkey_connections_accepted_total", "Admitted.")
        .add(number(inputs_.accepts->accepted.get()));
    Family refused =
        counter("latchkey_connections_refused_total", "Told why not and closed, by reason.");
    for (const auto& [reason, count] :
         std::initializer_list<std::pair<const char*, const Counter*>>{
             {"not_allowed", &inputs_.accepts->refused_not_allowed},
             {"overloaded", &inputs_.accepts->refused_overloaded},
             {"uid_limit", &inputs_.accepts->refused_uid_limit},
             {"no_descriptors", &inputs_.accepts->refused_no_descriptors}}) {
      refused.add(number(count->get()), {{"reason", reason}});
    }
    counter("latchkey_accept_errors_total", "Connections that the kernel would not hand over.")
        .add(number(inputs_.accepts->accept_errors.get()));
    Family ended = counter("latchkey_connections_ended_total", "Closed by latchkeyd, by reason.");
    ended.add(total([](const WorkerStats& w) -> const Counter& { return w.closed_idle; }),
              {{"reason", "idle"}});
    ended.add(total([](const WorkerStats& w) -> const Counter& { return w.closed_stalled; }),
              {{"reason", "stalled"}});
    ended.add(total([](const WorkerStats& w) -> const Counter& { return w.closed_hoarding; }),
              {{"reason", "hoarding"}});
  }

  // A host has few uids, and the daemon remembers a bounded number of them.
  void callers() {
    double waiting = 0;
    Family open = gauge("latchkey_caller_connections", "Open now, by uid.");
    for (const auto& [uid, caller] : inputs_.callers) {
      open.add(number(caller.connections), {{"uid", std::to_string(uid)}});
      waiting += number(caller.waiting_bytes);
    }
    if (trusted_) unknown_keys();
    gauge("latchkey_waiting_reply_bytes", "Replies that their callers have not taken yet.")
        .add(waiting);
  }

  void unknown_keys() {
    Family unknown = counter("latchkey_caller_unknown_keys_total",
                             "Keys that were told to be unknown, by uid: guesses, or another"
                             " installation's. Without `reasons`, refused ones are among them.");
    for (const auto& [uid, caller] : inputs_.callers) {
      unknown.add(number(caller.unknown), {{"uid", std::to_string(uid)}});
    }
  }

  // ---- databases and sources

  template <typename Value>
  void of_databases(Family family, Value value) {
    for (const LoaderStatus& loader : inputs_.loaders) {
      family.add(number(value(loader)), {{"database", loader.database}});
    }
  }

  void databases() {
    of_databases(gauge("latchkey_database_up", "1: connected and told of changes."),
                 [](const LoaderStatus& l) { return l.state == Refresh::State::kLive ? 1 : 0; });
    of_databases(counter("latchkey_database_connects_total", "Attempts to connect."),
                 [](const LoaderStatus& l) { return l.connects; });
    of_databases(counter("latchkey_database_failures_total", "Connections lost, or not made."),
                 [](const LoaderStatus& l) { return l.failures; });
    of_databases(counter("latchkey_heartbeats_total", "Proofs that notifications arrive."),
                 [](const LoaderStatus& l) { return l.barriers; });
    of_databases(gauge("latchkey_heartbeat_duration_seconds", "Round trip of the last heartbeat."),
                 [](const LoaderStatus& l) { return number(l.barrier_us) / 1e6; });
    of_databases(counter("latchkey_notifications_total", "Heard."),
                 [](const LoaderStatus& l) { return l.notifications; });
    of_databases(
        counter("latchkey_malformed_notifications_total", "Heard, and not understood: not ours."),
        [](const LoaderStatus& l) { return l.malformed_notifications; });
    of_databases(
        gauge("latchkey_pending_changes", "Rows that were told of and have not been read yet."),
        [](const LoaderStatus& l) { return l.pending_ids; });
    Family queue = gauge(
        "latchkey_notification_queue_ratio",
        "How full PostgreSQL's notification queue is. A full one refuses every change of keys.");
    for (const LoaderStatus& loader : inputs_.loaders) {
      if (loader.queue_usage < 0) continue;  // not known
      queue.add(loader.queue_usage, {{"database", loader.database}});
    }
    of_databases(counter("latchkey_database_promotions_total", "Failovers to a later timeline."),
                 [](const LoaderStatus& l) { return l.promotions; });
    of_databases(counter("latchkey_database_identity_changes_total",
                         "Another server or an older timeline answered: all was discarded."),
                 [](const LoaderStatus& l) { return l.identity_changes; });
    of_databases(
        gauge("latchkey_stalled_workers", "Workers that keep outdated records from being freed."),
        [](const LoaderStatus& l) { return l.stalled_readers.size(); });
  }

  template <typename Value>
  void of_sources(Family family, const Views& list, Value value) {
    for (const SourceView& source : list) {
      family.add(number(value(*source.status)), {{"source", source.status->name}});
    }
  }

  void sources() {
    const Views list = source_views(inputs_);
    const FreshnessLimits& limits = inputs_.policy->verifier.limits();
    Family age = gauge("latchkey_freshness_age_seconds",
                       "All that had committed so long ago is in force. Absent: never loaded.");
    for (const SourceView& source : list) {
      if (!source.route->keys->freshness.ever_proven()) continue;
      age.add(to_seconds(source.age_ns), {{"source", source.status->name}});
    }
    gauge("latchkey_freshness_bound_seconds", "Older answers are not fresh.")
        .add(to_seconds(limits.bound_ns));
    gauge("latchkey_max_stale_seconds", "Past this age there is no answer.")
        .add(to_seconds(limits.max_stale_ns));
    Family states = gauge("latchkey_source_state", "1 for the state in which the source is.");
    for (const SourceView& source : list) {
      for (const SourceState state :
           {SourceState::kConnecting, SourceState::kListening, SourceState::kLoading,
            SourceState::kFresh, SourceState::kStale, SourceState::kLost,
            SourceState::kUnavailable}) {
        states.add(source.standing.state == state ? 1 : 0,
                   {{"source", source.status->name}, {"state", source_state_name(state)}});
      }
    }
    of_sources(gauge("latchkey_keys", "Keys that can be looked up."), list,
               [](const SourceStatus& s) { return s.keys; });
    of_sources(
        gauge("latchkey_ambiguous_keys", "Keys that several rows hold, and so nobody may use."),
        list, [](const SourceStatus& s) { return s.ambiguous; });
    Family loads = counter("latchkey_loads_total", "Whole tables read, by reason.");
    for (const SourceView& source : list) {
      for (std::size_t i = 0; i < kLoadReasons; ++i) {
        loads.add(number(source.status->loads_by_reason[i]),
                  {{"source", source.status->name},
                   {"reason", load_reason_name(static_cast<LoadReason>(i))}});
      }
    }
    of_sources(gauge("latchkey_load_rows", "Rows of the last load, or of the one under way."), list,
               [](const SourceStatus& s) { return s.load_rows; });
    of_sources(
        gauge("latchkey_load_duration_seconds", "Of the last load, or of the one under way."), list,
        [](const SourceStatus& s) { return s.load_seconds; });
    of_sources(gauge("latchkey_loading", "1: a load is under way."), list,
               [](const SourceStatus& s) { return s.loading ? 1 : 0; });
    of_sources(gauge("latchkey_source_suspended",
                     "1: its table cannot be read, and its answers grow old."),
               list, [](const SourceStatus& s) { return s.suspended ? 1 : 0; });
    of_sources(gauge("latchkey_source_polled",
                     "1: its triggers are missing, so its table is read again and again."),
               list, [](const SourceStatus& s) { return s.polled ? 1 : 0; });
    of_sources(counter("latchkey_rereads_total", "Rows read by id after a notification."), list,
               [](const SourceStatus& s) { return s.rereads; });
    Family delay(all_, MetricType::Histogram, "latchkey_change_delay_seconds",
                 "From a notification's arrival until what it told of was in force. What lies"
                 " between COMMIT and the arrival is not in it.");
    for (const SourceView& source : list) {
      delay.add(source.status->change_delays, {{"source", source.status->name}});
    }
    Family audits = counter("latchkey_audits_total", "Comparisons of the whole table, by outcome.");
    for (const SourceView& source : list) {
      const SourceStatus& s = *source.status;
      const auto add = [&](const char* outcome, std::uint64_t count) {
        audits.add(number(count), {{"source", s.name}, {"outcome", outcome}});
      };
      add("agreed", s.audits - s.audit_mismatches);
      add("mismatch", s.audit_mismatches);
      add("unsure", s.audits_unsure);
      add("failed", s.audits_failed);
    }
    of_sources(gauge("latchkey_audits_undecided_in_a_row",
                     "Audits in a row that could not decide, so that loads did."),
               list, [](const SourceStatus& s) { return s.audits_undecided_in_a_row; });
    Family unseen =
        gauge("latchkey_source_unseen_seconds",
              "For so long a change may have been unseen that fired no trigger: since the"
              " whole table was last read, or last agreed with an audit.");
    for (const SourceView& source : list) {
      const std::int64_t seen_ns = source.status->seen_boot_ns;
      if (seen_ns == 0) continue;
      unseen.add(to_seconds(inputs_.now_boot_ns - seen_ns), {{"source", source.status->name}});
    }
    Family findings =
        gauge("latchkey_findings", "What can be said against the source, by severity.");
    for (const SourceView& source : list) {
      for (const Severity severity : {Severity::kError, Severity::kWarning, Severity::kNote}) {
        std::size_t count = 0;
        for (const auto* some : {&source.status->problems, &source.status->findings}) {
          count +=
              static_cast<std::size_t>(std::ranges::count(*some, severity, &Finding::severity));
        }
        findings.add(number(count),
                     {{"source", source.status->name}, {"severity", severity_name(severity)}});
      }
    }
    Family memory = gauge("latchkey_memory_bytes", "Memory for keys, by what it is for.");
    for (const SourceView& source : list) {
      const KeySetMemory& m = source.status->memory;
      const auto add = [&](const char* kind, std::size_t bytes) {
        memory.add(number(bytes), {{"source", source.status->name}, {"kind", kind}});
      };
      add("records", m.records);
      add("map", m.map);
      add("index", m.index);
    }
    of_sources(
        gauge("latchkey_waiting_bytes", "Of these: outdated, but a worker may still look at it."),
        list, [](const SourceStatus& s) { return s.memory.waiting; });
    last_used(list);
  }

  void last_used(const Views& list) {
    Family written =
        counter("latchkey_last_used_written_total", "Times of the last use written back.");
    for (const SourceView& s : list) {
      if (s.status->last_used) {
        written.add(number(s.status->last_used->written), {{"source", s.status->name}});
      }
    }
    Family dropped =
        counter("latchkey_last_used_dropped_total", "Times that could not be written.");
    for (const SourceView& s : list) {
      if (s.status->last_used) {
        dropped.add(number(s.status->last_used->dropped), {{"source", s.status->name}});
      }
    }
  }

  const StatusInputs& inputs_;
  const ProcessFacts& facts_;
  const bool trusted_;
  std::vector<MetricFamily> all_;
};

}  // namespace

std::string metrics_text(const StatusInputs& inputs, const ProcessFacts& process,
                         MetricsReaders readers) {
  return Metrics(inputs, process, readers).text();
}

}  // namespace latchkey
