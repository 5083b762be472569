#include "loader/postgres/heartbeat.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "loader/postgres/answers.h"
#include "loader/postgres/nonce.h"
#include "loader/postgres/queue_trouble.h"
#include "loader/postgres/version.h"

namespace latchkey {
namespace {

// The nonce waits for the reading connection for bound / kEchoPatience before another connection is
// opened; bound / 2 if an audit would have to be aborted. kEchoLook: interval of these checks.
constexpr std::int64_t kEchoPatience = 8;
constexpr std::int64_t kEchoLook = 20'000'000;

}  // namespace

void Heartbeat::begin(std::uint64_t number) {
  number_ = number;
  nonce_.clear();
  nonce_back_ = false;
  sent_ns_ = boot_ns();
  listening_.ask([this](const PgRows& rows) { take(rows); },
                 [this] {
                   wanted_ns_ = boot_ns();
                   database_.refresh.barrier_held();
                 });
}

void Heartbeat::take(const PgRows& rows) {
  rows.expect_columns(4);
  read_answer("the heartbeat", [&] { take_versions(rows.value(0, 0)); });
  database_.history.reached({.inserted = read_lsn(rows, 1), .flushed = read_lsn(rows, 2)});
  const auto text = rows.field(0, 3);
  const double usage = text ? number_or_fail(*text) : -1;
  if (usage >= kQueueUsageWarning) {
    database_.board.set_trouble("PostgreSQL's notification queue is " + percent(usage) +
                                    " full. Once it is full, nobody can commit a change of keys." +
                                    kWhoHoldsTheQueue,
                                /*queue_in_the_way=*/false, boot_ns());
  }
  database_.board.update([usage](LoaderStatus& status) { status.queue_usage = usage; });
}

// A table with other triggers or files than at its look-up may have changed without a notification.
// The proof of this barrier then waits until the table has been loaded again.
//
// That load looks the table up before it reads it. So rows are never older than the version kept
// with them: a change in between costs another load. While a load is requested or runs, nothing is
// proven, although the kept version may already be the new one.
void Heartbeat::take_versions(std::string_view text) {
  const std::vector<std::string> versions = versions_from_json(text, database_.sources.size());
  for (std::size_t i = 0; i < versions.size(); ++i) {
    FollowedSource& source = *database_.sources[i];
    if (versions[i] == source.facts.version || versions[i] == source.version_reloaded) continue;
    source.version_reloaded = versions[i];
    database_.refresh.reload(i, LoadReason::kTableChanged);
  }
}

void Heartbeat::turn_nonce() {
  if (!nonce_back_) return;
  nonce_.clear();
  nonce_back_ = by_lane_ = false;
  const std::int64_t now_ns = boot_ns();
  double usage = 0;
  database_.board.update([&](LoaderStatus& status) {
    ++status.barriers;
    status.barrier_us = (now_ns - sent_ns_) / 1000;
    usage = status.queue_usage;
  });
  if (usage < kQueueUsageWarning) database_.board.set_trouble("", false, now_ns);
  database_.refresh.barrier_returned(number_);
}

void Heartbeat::turn_echo(std::int64_t now_ns) {
  if (wanted_ns_ != 0 && reading_.idle()) echo_by_reading(now_ns);
  try {
    turn_lane(now_ns);
  } catch (const PgError& error) {
    // The nonce still waits for the reading connection, which becomes free at some time.
    spdlog::debug("database \"{}\": no connection for heartbeats: {}", database_.config.name,
                  error.what());
    lane_.reset();
    no_lane_before_ns_ = now_ns + kSecond;
    if (!std::exchange(by_lane_, false)) return;
    nonce_.clear();
    database_.refresh.barrier_refused(now_ns);
  }
}

void Heartbeat::turn_lane(std::int64_t now_ns) {
  if (lane_) lane_->advance(now_ns);
  if (wanted_ns_ == 0) return;
  if (lane_) {
    if (lane_->ready()) echo_by_lane(now_ns);
    return;
  }
  const std::int64_t patience_ns =
      database_.config.bound_ns / (auditing_.under_way() ? 2 : kEchoPatience);
  if (now_ns < std::max(wanted_ns_ + patience_ns, no_lane_before_ns_)) return;
  if (database_.last_used.busy()) return;
  if (auditing_.under_way()) {
    auditing_.fail("a table is read meanwhile, and the heartbeat needs the third connection");
  }
  database_.last_used.disconnect();
  lane_.emplace(database_.config.target, listening_.connection().server(), now_ns);
}

void Heartbeat::echo_by_reading(std::int64_t now_ns) {
  lane_.reset();
  wanted_ns_ = 0;
  nonce_ = random_hex(16);
  database_.refresh.barrier_went(now_ns);
  reading_.echo(listening_.channel(), nonce_,
                [this](const PgQueryError& error) { refused(error); });
}

void Heartbeat::echo_by_lane(std::int64_t now_ns) {
  wanted_ns_ = 0;
  nonce_ = random_hex(16);
  by_lane_ = true;
  database_.refresh.barrier_went(now_ns);
  lane_->send(listening_.channel(), nonce_, [this](const PgQueryError& error) { refused(error); });
}

// The connections work, so they are kept: new ones would have to pass the full queue.
void Heartbeat::refused(const PgQueryError& error) {
  nonce_.clear();
  by_lane_ = false;
  const std::int64_t now_ns = boot_ns();
  const bool full = error.sqlstate() == kQueueFull;
  database_.board.set_trouble(full ? std::string(kQueueIsFull) + kWhoHoldsTheQueue
                                   : std::string("the heartbeat's notification: ") + error.what(),
                              full, now_ns);
  database_.refresh.barrier_refused(now_ns);
}

std::int64_t Heartbeat::wake_ns(std::int64_t now_ns) const {
  const std::int64_t look_ns = wanted_ns_ != 0 ? now_ns + kEchoLook : kNoDeadline;
  return std::min(look_ns, lane_ ? lane_->deadline_ns() : kNoDeadline);
}

}  // namespace latchkey
