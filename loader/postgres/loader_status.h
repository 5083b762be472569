// The status of one database's loader and its sources: copies, for status, metrics and `--check`.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/histogram.h"
#include "keymap/key_set.h"
#include "loader/finding.h"
#include "loader/last_used.h"
#include "loader/oddity.h"
#include "loader/postgres/identity.h"
#include "loader/refresh.h"

namespace latchkey {

// The status of one source; a copy taken under StatusBoard's lock.
struct SourceStatus {
  std::string name;
  std::size_t rows = 0;
  std::size_t keys = 0;
  std::size_t ambiguous = 0;  // digests that several rows hold
  bool suspended = false;     // its table cannot be read; `problems` has the reason
  bool polled = false;  // changes are not notified, so the whole table is loaded again and again
  std::uint64_t loads = 0;
  std::array<std::uint64_t, kLoadReasons> loads_by_reason{};
  // From a notification's arrival until its change was in force, for rows read by id.
  Histogram<PlainCount> change_delays;
  bool loading = false;
  std::uint64_t load_rows = 0;      // of the current or the last load
  double load_seconds = 0;          // of the current or the last load
  double rows_expected = -1;        // PostgreSQL's estimate at the look-up; negative: none
  std::uint64_t audits = 0;         // comparisons with the table that had a result
  std::uint64_t audits_unsure = 0;  // too much changed meanwhile
  std::uint64_t audits_undecided_in_a_row = 0;
  std::uint64_t audits_failed = 0;     // the database did not answer
  std::uint64_t audit_mismatches = 0;  // audits that found a change without a notification
  std::int64_t audited_boot_ns = 0;    // the last audit with a result; zero: none so far
  double audit_seconds = 0;            // its duration in the database
  // The begin of the last reading of the whole table that brought it into force or agreed with the
  // loaded rows. A later change that no trigger reported may be unseen.
  std::int64_t seen_boot_ns = 0;   // zero: none so far
  std::int64_t unseen_max_ns = 0;  // maximum from the begin of one reading to the end of the next
  std::uint64_t rereads = 0;       // rows asked for by id
  std::uint64_t malformed_ids = 0;
  KeySetMemory memory;
  std::int64_t fresh_since_boot_ns = 0;     // the end of the last period without fresh answers
  OddityCounts oddities{};                  // of the last load
  std::vector<Finding> problems;            // of the table at the last load, or why that failed
  std::vector<Finding> findings;            // of the last load, sorted by number
  bool comparing = false;                   // with other sources, for the last of the findings
  std::optional<LastUsedCounts> last_used;  // nullopt: last_used_at is not mapped
};

struct LoaderStatus {
  std::string database;
  Refresh::State state = Refresh::State::kConnecting;
  std::int64_t since_boot_ns = 0;
  std::string host;        // connected or tried
  std::string last_error;  // PostgreSQL's message; empty: none so far
  std::int64_t last_error_boot_ns = 0;
  std::string trouble;  // the present problem and its remedy; empty: none
  // The trouble is PostgreSQL's notification queue and will pass: a restart would make it worse.
  bool queue_in_the_way = false;
  double queue_usage = -1;  // of the notification queue, 0 to 1; negative: unknown
  ServerIdentity identity;
  std::uint64_t promotions = 0;        // failovers to a later timeline
  std::uint64_t identity_changes = 0;  // another cluster, or an older copy: all keys were discarded
  std::uint64_t connects = 0;
  std::uint64_t failures = 0;
  std::uint64_t rounds_failed = 0;  // passes in which every address of every host failed
  std::uint64_t notifications = 0;
  std::uint64_t malformed_notifications = 0;
  std::uint64_t barriers = 0;
  std::int64_t barrier_us = 0;  // round trip of the last barrier
  std::size_t pending_ids = 0;
  // Workers that block the freeing of outdated records, and the time since when they do.
  std::vector<std::string> stalled_readers;
  std::int64_t stalled_ns = 0;
  std::vector<SourceStatus> sources;
};

}  // namespace latchkey
