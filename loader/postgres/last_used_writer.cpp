#include "loader/postgres/last_used_writer.h"

#include <poll.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <array>
#include <limits>
#include <span>
#include <string_view>
#include <unordered_set>
#include <utility>

#include "base/clock.h"
#include "loader/postgres/ids.h"
#include "loader/postgres/session_setup.h"

namespace latchkey {
namespace {

constexpr std::size_t kPendingMax = 1'000'000;  // rows of one source: about 100 MB
constexpr std::int64_t kFinishDeadline = 3'000'000'000;
// With longer pauses between rounds, the connection is closed meanwhile.
constexpr std::int64_t kKeepConnection = 30'000'000'000;

// The next round retries a locked table. No commit needs to wait for a disk or a standby for the
// sake of these times: a crash of the server may lose some.
constexpr const char* kWriterSettings =
    "SET synchronous_commit = off;"
    "SET lock_timeout = '500ms';"
    "SET statement_timeout = '9s';";

}  // namespace

LastUsedWriter::LastUsedWriter(std::string database, PgTarget target, std::int64_t flush_ns,
                               std::uint64_t seed)
    : database_(std::move(database)),
      target_(std::move(target)),
      flush_ns_(flush_ns),
      rounds_(flush_ns, seed) {}

std::size_t LastUsedWriter::add(const SourceConfig& source, const TableFacts& facts,
                                const KeySetWriter& keys, UseLog& uses) {
  sources_.push_back(std::make_unique<Source>(
      Source{source, facts, keys, uses, PendingUses(kPendingMax), 0, {}, 0, 0, false}));
  return sources_.size() - 1;
}

std::size_t LastUsedWriter::pending() const {
  std::size_t sum = batch_.size();
  for (const auto& source : sources_) sum += source->pending.size() + source->locked.size();
  return sum;
}

LastUsedCounts LastUsedWriter::counts(std::size_t index) const {
  const Source& source = *sources_.at(index);
  const bool under_way = index == at_;
  return {.written = source.written,
          .pending = source.pending.size() + source.locked.size() + (under_way ? batch_.size() : 0),
          .deferred = source.uses.deferred(),
          .dropped = source.pending.dropped(),
          .failures = source.failures};
}

bool LastUsedWriter::busy() const {
  return connection_ != nullptr && !(prepared_ && connection_->idle() && !in_round_);
}

std::int64_t LastUsedWriter::next_ns() const {
  if (sources_.empty()) return std::numeric_limits<std::int64_t>::max();
  return busy() ? deadline_ns_ : rounds_.next_ns();
}

void LastUsedWriter::turn(std::int64_t now_ns, const PgConnection* alive) {
  if (sources_.empty()) return;
  const bool due = !in_round_ && now_ns >= rounds_.next_ns();
  if (due || std::ranges::any_of(sources_, [](const auto& s) { return s->uses.crowded(); })) {
    collect();
  }
  if (due) begin_round(now_ns);
  try {
    advance(now_ns, alive);
  } catch (const PgQueryError& error) {
    failed(now_ns, error.what(), batch_.size());
  } catch (const PgError& error) {
    if (in_round_) {
      failed(now_ns, error.what(), 0);
    } else {
      disconnect();  // no round was running; the next one connects again
    }
  }
}

// Takes uses from the workers' rings. Rows that are gone by now, or that share their key with other
// rows, are not written.
void LastUsedWriter::collect() {
  for (const auto& source : sources_) {
    std::array<Digest, KeyMap::kBatchMax> digests;
    std::array<std::int64_t, KeyMap::kBatchMax> times_us;
    std::array<const Record*, KeyMap::kBatchMax> rows;
    std::size_t count = 0;
    const auto look_up = [&] {
      source->keys.rows_of(std::span(digests).first(count), rows);
      for (std::size_t i = 0; i < count; ++i) {
        if (rows[i] != nullptr) source->pending.add(rows[i]->key_id(), times_us[i]);
      }
      count = 0;
    };
    source->uses.take([&](const Use& use) {
      digests[count] = use.digest;
      times_us[count] = use.real_us;
      if (++count == digests.size()) look_up();
    });
    if (count > 0) look_up();
  }
}

// ---- rounds

// The round covers all rows that wait now.
void LastUsedWriter::take_all_pending() {
  for (const auto& source : sources_) {
    source->left = source->writable() ? source->pending.size() : 0;
  }
}

void LastUsedWriter::begin_round(std::int64_t now_ns) {
  rounds_.begun(now_ns);
  take_all_pending();
  in_round_ = std::ranges::any_of(sources_, [](const auto& source) { return source->left > 0; });
}

void LastUsedWriter::end_round() {
  in_round_ = false;
  for (const auto& source : sources_) {
    source->left = 0;
    source->pending.give_back(std::exchange(source->locked, {}));
  }
  if (flush_ns_ > kKeepConnection) disconnect();
}

void LastUsedWriter::disconnect() {
  connection_.reset();
  prepared_ = false;
  if (!in_round_) return;
  // These go behind the locked rows: they were tried later.
  sources_[at_]->pending.give_back(std::exchange(batch_, {}));
  end_round();
}

void LastUsedWriter::advance(std::int64_t now_ns, const PgConnection* alive) {
  if (connection_ != nullptr) {
    const bool was_connected = connection_->connected();
    connection_->advance();
    if (!was_connected && connection_->connected()) {
      session_owner_.begin();
      connection_->send(session_settings(false) + kWriterSettings,
                        {.copy_data = {}, .rows = {}, .done = [this] { prepared_ = true; }});
    }
  } else if (in_round_ && alive != nullptr) {
    connect(now_ns, *alive);
  } else if (in_round_) {
    end_round();  // the database is unreachable; the loader reconnects
  }
  if (connection_ == nullptr) return;
  if (prepared_ && connection_->idle() && in_round_ && !write_batch(now_ns)) round_done();
  if (busy() && now_ns > deadline_ns_) {
    throw PgError("the connection that writes last_used_at got no answer within " +
                  std::to_string(kStepDeadline / kSecond) + " seconds");
  }
}

// Connects to the server that the loader listens to, without resolving its name again: that can
// take seconds, during which the loader's thread could not listen.
void LastUsedWriter::connect(std::int64_t now_ns, const PgConnection& alive) {
  deadline_ns_ = now_ns + kStepDeadline;
  connection_ = std::make_unique<PgConnection>(target_, alive.server());
}

// Returns false if all rows of this round are written.
bool LastUsedWriter::write_batch(std::int64_t now_ns) {
  for (std::size_t tried = 0; tried < sources_.size() && sources_[at_]->left == 0; ++tried) {
    at_ = (at_ + 1) % sources_.size();
  }
  Source& source = *sources_[at_];
  batch_ = source.pending.take(std::min(source.left, rounds_.batch()));
  source.left -= batch_.size();
  if (batch_.empty()) {
    source.left = 0;  // the rows were dropped meanwhile
    return std::ranges::any_of(sources_, [](const auto& s) { return s->left > 0; }) &&
           write_batch(now_ns);
  }
  std::vector<std::string> ids, times;
  for (const UsedRow& row : batch_) {
    ids.push_back(row.id);
    times.push_back(std::to_string(row.real_us));
  }
  deadline_ns_ = now_ns + kStepDeadline;
  std::vector<std::string> before = session_owner_.before(source.config.name, source.facts);
  if (!before.empty()) before.emplace_back(kWriterSettings);
  send_batch(before, 0, {array_literal(ids), array_literal(times)});
  return true;
}

void LastUsedWriter::send_batch(const std::vector<std::string>& before, std::size_t from,
                                const std::vector<std::string>& parameters) {
  if (from < before.size()) {
    connection_->send(before[from],
                      {.copy_data = {}, .rows = {}, .done = [this, before, from, parameters] {
                         send_batch(before, from + 1, parameters);
                       }});
    return;
  }
  const Source& source = *sources_[at_];
  connection_->send(last_used_sql(source.config, source.facts), parameters,
                    {.copy_data = {},
                     .rows = [this](const PgRows& rows) { batch_done(rows); },
                     .done = {},
                     .what = "the writing of last_used_at"});
}

// The result has the rows that were older than the use: the written ones, and those locked by other
// sessions.
void LastUsedWriter::batch_done(const PgRows& rows) {
  Source& source = *sources_[at_];
  std::unordered_set<std::string_view> locked;
  rows.expect_columns(2);
  for (int i = 0; i < rows.rows(); ++i) {
    if (rows.value(i, 1) == std::string_view("\1", 1)) {
      ++source.written;
    } else {
      locked.insert(rows.value(i, 0));
    }
  }
  for (UsedRow& row : batch_) {
    if (locked.contains(row.id)) source.locked.push_back(std::move(row));
  }
  batch_.clear();
  rounds_.written();
}

// All sources had their turn, and nothing failed. (A row that cannot be written ends each round:
// the error is logged once, not each time that other rows have been written.)
void LastUsedWriter::round_done() {
  end_round();
  if (!last_error_.empty()) {
    spdlog::info("database \"{}\": last_used_at is written again", database_);
  }
  last_error_.clear();
}

void LastUsedWriter::failed(std::int64_t now_ns, const std::string& why, std::size_t refused) {
  Source& source = *sources_[at_];
  ++source.failures;
  rounds_.failed(now_ns, refused);
  if (refused > 0) {
    // To the end of the queue: other rows may be written while one of these fails.
    for (const UsedRow& row : batch_) source.pending.add(row.id, row.real_us);
    batch_.clear();
  }
  disconnect();
  // The next round starts with another source: the cause may concern this one alone.
  at_ = (at_ + 1) % sources_.size();
  if (why != last_error_) {
    spdlog::warn(
        "database \"{}\": last_used_at of source \"{}\" cannot be written: {}. Answers do not"
        " depend on it; {} rows wait, and are tried again.",
        database_, source.config.name, why, pending());
  }
  last_error_ = why;
}

// ---- the end

void LastUsedWriter::finish(const PgConnection* alive) {
  if (sources_.empty()) return;
  collect();
  if (in_round_) {
    take_all_pending();
  } else {
    rounds_.hurry();
  }
  const std::int64_t deadline_ns = boot_ns() + kFinishDeadline;
  std::int64_t now_ns = boot_ns();
  const auto failures = [this] {
    std::uint64_t sum = 0;
    for (const auto& source : sources_) sum += source->failures;
    return sum;
  };
  const std::uint64_t failures_before = failures();
  do {
    turn(now_ns, alive);
    if (busy()) {
      pollfd fd{socket(), events(), 0};
      poll(&fd, 1, static_cast<int>(std::max<std::int64_t>(0, deadline_ns - now_ns) / 1'000'000));
    }
    now_ns = boot_ns();
  } while (in_round_ && failures() == failures_before && now_ns < deadline_ns);
  disconnect();
  for (const auto& source : sources_) {
    if (source->pending.size() == 0) continue;
    spdlog::warn(
        "source \"{}\": last_used_at of {} rows was not written: {}. Those times are lost.",
        source->config.name, source->pending.size(),
        !last_error_.empty()   ? last_error_
        : alive == nullptr     ? "the database cannot be reached"
        : now_ns < deadline_ns ? "somebody else has locked these rows"
                               : "the database took too long");
  }
}

}  // namespace latchkey
