#include "loader/postgres/followed_source.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <iterator>
#include <unordered_set>
#include <utility>

#include "base/clock.h"
#include "loader/oddity.h"
#include "loader/postgres/catalogue_lint.h"

namespace latchkey {
namespace {

// Limit for the estimate of rows, above the size of any table of keys: a wrong estimate must not
// cost more.
constexpr double kRowsExpectedMax = 1e9;

// Logs findings that are new since `before`, or gone; does not repeat them with every load. The
// rate is limited, because writers of rows and the table's owner can make findings come and go.
void log_findings(const std::string& source, LogLimits& limits, const std::vector<Finding>& before,
                  const std::vector<Finding>& now, std::int64_t now_ns) {
  for (const Finding& finding : news(before, now)) {
    const auto level = finding.severity() == Severity::kError     ? spdlog::level::err
                       : finding.severity() == Severity::kWarning ? spdlog::level::warn
                                                                  : spdlog::level::info;
    const auto more = limits.tell("new " + std::string(finding.number()), now_ns);
    if (more) spdlog::log(level, "source \"{}\": {}{}", source, finding.numbered(), *more);
  }
  for (const Finding& finding : gone(before, now)) {
    const auto more = limits.tell("gone " + std::string(finding.number()), now_ns);
    if (!more) continue;
    spdlog::info("source \"{}\": {}: {} is no longer so{}", source, finding.number(),
                 finding.name(), *more);
  }
}

}  // namespace

FollowedSource::FollowedSource(LoaderSource from, Quiescence& quiescence)
    : settings_(std::move(from)), writer_(*settings_.keys, quiescence) {
  status.name = settings_.config.name;
}

void FollowedSource::set_pepper_versions(std::unordered_set<std::string> versions) {
  settings_.pepper_versions = std::move(versions);
  if (pipeline_) make_pipeline();
}

// ---- freshness

void FollowedSource::prove(std::int64_t proven_ns, std::int64_t now_ns, std::int64_t bound_ns) {
  FreshnessStamp& freshness = settings_.keys->freshness;
  if (freshness.age_ns(now_ns) > bound_ns) status.fresh_since_boot_ns = now_ns;
  freshness.prove(proven_ns);
}

void FollowedSource::seen(std::int64_t begun_ns, std::int64_t now_ns) {
  if (status.seen_boot_ns != 0) {
    status.unseen_max_ns = std::max(status.unseen_max_ns, now_ns - status.seen_boot_ns);
  }
  status.seen_boot_ns = begun_ns;
}

// ---- a load

void FollowedSource::make_pipeline() {
  pipeline_.emplace(settings_.config, facts, writer_, settings_.pepper_versions);
}

void FollowedSource::begin_load(std::int64_t now_ns, std::int64_t now_us) {
  abandon_load();
  if (settings_.keys->freshness.ever_proven()) {
    table_.emplace(writer_, ChangeScope::kTable);
  } else {
    table_.emplace(
        writer_, ChangeScope::kFirstTable,
        static_cast<std::size_t>(std::clamp(facts.rows_estimated, 0.0, kRowsExpectedMax)));
  }
  unusable.begin_load();
  if (audit != nullptr) audit->spoil();
  copy_.emplace(pipeline_->fields());
  lint_.emplace(settings_.config, now_us);
  load_since_ns_ = now_ns;
  told_ns_ = asked_ns_ = 0;  // they measure only rows read by id
  status.loading = true;
  status.load_rows = 0;
  status.rows_expected = facts.rows_estimated;
}

void FollowedSource::take(std::span<const std::string_view> copy_messages) {
  for (const std::string_view message : copy_messages) {
    copy_->read(message, [this](const CopyReader::Fields& fields) { pipeline_->add(fields); });
  }
  status.load_rows += pipeline_->rows();
  pipeline_->run([this](const RowPipeline::Row& row) {
    lint_->count(row.meaning);
    const auto& record = row.meaning.facts;
    const bool has_own_id = record && !record->id_is_made_up;
    if (record) {
      has_own_id ? table_->stage(*record, row.known) : table_->stage(*record);
    }
    // An audit finds no record for this row.
    if (!has_own_id && row.has_key) unusable.load(row.id, row.hash);
  });
}

void FollowedSource::finish_load(const std::string& step) {
  if (!copy_->ended()) throw PgError(step + ": the COPY broke off before its end");
  report_ = table_->apply();
  table_.reset();
  unusable.finish_load();
}

void FollowedSource::report_load(std::int64_t now_ns, const SideRights& rights) {
  seen(load_since_ns_, now_ns);
  status.loading = false;
  status.suspended = false;
  status.load_seconds = to_seconds(now_ns - load_since_ns_);
  status.oddities = lint_->oddities();
  refused_in_a_row = 0;
  ++status.loads;
  ++status.loads_by_reason[static_cast<std::size_t>(load_reason)];
  log_load(now_ns);

  std::vector<Finding> found = lint_->findings(writer_.rows(), writer_.ambiguous_digests());
  std::ranges::move(catalogue_findings(settings_.config, facts), std::back_inserter(found));
  // The findings of the last comparison of sources stay until the next one ends.
  std::ranges::copy_if(status.findings, std::back_inserter(found),
                       [](const Finding& f) { return f.lint == Lint::kKeyInSeveralSources; });
  if (auto missing = missing_rights(rights)) found.push_back(std::move(*missing));
  set_findings(std::move(found), now_ns);
  if (!settings_.alike.empty()) overlap_.emplace(writer_, settings_.alike);
}

// Others can cause loads again and again: by a notification, or by a change of the table.
void FollowedSource::log_load(std::int64_t now_ns) {
  const std::string loaded = std::string("loaded: ") + load_reason_name(load_reason);
  if (const auto more = log_limits.tell(loaded, now_ns)) {
    spdlog::info("source \"{}\": loaded {} rows in {:.2f} s ({} new, {} changed, {} gone){}",
                 name(), status.load_rows, status.load_seconds, report_.added, report_.changed,
                 report_.removed, *more);
  }
  if (writer_.rows() == 0 && report_.removed > 0) {
    if (const auto more = log_limits.tell("empty", now_ns)) {
      spdlog::warn("source \"{}\": all its keys are gone: table {} is empty now{}", name(),
                   settings_.config.table.display(), *more);
    }
  }
}

void FollowedSource::abandon_load() {
  table_.reset();
  unusable.abandon_load();
  status.loading = false;
}

// ---- rows read by id

OddityCounts FollowedSource::apply(const PgRows& rows, const std::vector<std::string>& ids,
                                   std::int64_t now_ns) {
  OddityCounts oddities{};
  for (const std::string& id : ids) unusable.erase(id);
  if (!rows.are_of_types(pipeline_->types())) {
    overtaken = true;
    return oddities;
  }
  CopyReader::Fields fields(pipeline_->fields());
  for (int i = 0; i < rows.rows(); ++i) {
    for (std::size_t j = 0; j < fields.size(); ++j) fields[j] = rows.field(i, static_cast<int>(j));
    pipeline_->add(fields);
  }
  ChangeSet changes(writer_, ChangeScope::kRows);
  std::unordered_set<std::string_view> found;
  pipeline_->run([&](const RowPipeline::Row& row) {
    row.meaning.odd.count_in(oddities);
    const auto& record = row.meaning.facts;
    // (No notification contains an id that is too long to be served: is_notified_id().)
    if (record && !record->id_is_made_up) {
      changes.stage(*record, row.known);
      found.emplace(row.id);
    } else if (row.has_key) {
      unusable.set(row.id, row.hash);
    }
  });
  // These rows do not exist, or no key can match them.
  for (const std::string& id : ids) {
    if (!found.contains(id)) changes.gone(id);
  }
  changes.apply();
  log_oddities(oddities, now_ns);
  return oddities;
}

void FollowedSource::told(std::int64_t now_ns) {
  if (told_ns_ == 0) told_ns_ = now_ns;
}

void FollowedSource::asked() {
  if (told_ns_ != 0) asked_ns_ = std::exchange(told_ns_, 0);
}

void FollowedSource::answered(std::int64_t now_ns) {
  if (asked_ns_ != 0) status.change_delays.add(now_ns - std::exchange(asked_ns_, 0));
}

// Repeated notifications of one odd row must not fill the log.
void FollowedSource::log_oddities(const OddityCounts& counts, std::int64_t now_ns) {
  for (std::size_t i = 0; i < kOddities; ++i) {
    if (counts[i] == 0) continue;
    const auto oddity = static_cast<Oddity>(i);
    const auto more = log_limits.tell(oddity_name(oddity), now_ns, counts[i]);
    if (!more) continue;
    spdlog::warn("source \"{}\": {}: {} changed rows: {}: {}{}", name(),
                 rule_of(lint_of(oddity)).number, counts[i], oddity_name(oddity),
                 oddity_sentence(oddity), *more);
  }
}

// ---- findings

void FollowedSource::report_problems(std::vector<Finding> found, std::string_view until_then,
                                     std::int64_t now_ns) {
  const std::vector<Finding>& before = status.problems;
  log_findings(name(), log_limits, before, found, now_ns);
  if (before.empty() && !found.empty()) {
    if (const auto more = log_limits.tell(std::string(until_then), now_ns)) {
      spdlog::error("source \"{}\": {}{}", name(), until_then, *more);
    }
  } else if (!before.empty() && found.empty()) {
    if (const auto more = log_limits.tell("followed again", now_ns)) {
      spdlog::info("source \"{}\": followed again{}", name(), *more);
    }
  }
  status.problems = std::move(found);
}

void FollowedSource::set_findings(std::vector<Finding> found, std::int64_t now_ns) {
  std::ranges::stable_sort(found, {}, &Finding::lint);
  log_findings(name(), log_limits, status.findings, found, now_ns);
  status.findings = std::move(found);
}

bool FollowedSource::comparison_begins() {
  return overlap_ && !std::exchange(status.comparing, true);
}

bool FollowedSource::compare_sources(Quiescence& quiescence, std::int64_t now_ns) {
  if (overlap_ && overlap_->step(quiescence)) return true;
  if (!overlap_) return false;
  std::vector<Finding> found = overlap_findings(overlap_->shared());
  std::ranges::copy_if(status.findings, std::back_inserter(found),
                       [](const Finding& f) { return f.lint != Lint::kKeyInSeveralSources; });
  set_findings(std::move(found), now_ns);
  overlap_.reset();
  status.comparing = false;
  return false;
}

void FollowedSource::update_status(std::int64_t now_ns) {
  status.rows = writer_.rows();
  status.keys = settings_.keys->map.size();
  if (status.loading) status.load_seconds = to_seconds(now_ns - load_since_ns_);
  status.ambiguous = writer_.ambiguous_digests();
  status.memory = writer_.memory();
}

}  // namespace latchkey
