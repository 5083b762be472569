// What the loader of one database tells of itself and its sources: copies, for status, metrics and
// `--check`.
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

// What an operator may want to know; a copy, taken under the loader's lock.
struct SourceStatus {
  std::string name;
  std::size_t rows = 0;
  std::size_t keys = 0;
  std::size_t ambiguous = 0;  // digests that several rows hold
  bool suspended = false;     // its table cannot be read; `problems` says why
  bool polled = false;  // changes are not heard of, so the whole table is read again and again
  std::uint64_t loads = 0;
  std::array<std::uint64_t, kLoadReasons> loads_by_reason{};
  // From a notification's arrival until what it told of was in force, where rows were read by id.
  Histogram<PlainCount> change_delays;
  bool loading = false;
  std::uint64_t load_rows = 0;  // of the load under way or the last one
  double load_seconds = 0;      // likewise
  double rows_expected = -1;  // PostgreSQL's estimate when it was looked up; negative: it has none
  std::uint64_t audits = 0;   // comparisons with the table that came to a result
  std::uint64_t audits_unsure = 0;  // too much changed meanwhile
  std::uint64_t audits_undecided_in_a_row = 0;
  std::uint64_t audits_failed = 0;     // the database did not answer
  std::uint64_t audit_mismatches = 0;  // that found a change which nothing had told of
  std::int64_t audited_boot_ns = 0;    // when the last one came to a result; zero: none so far
  double audit_seconds = 0;            // that the database took for it
  // When the reading of the whole table began that was the last to bring it into force, or to agree
  // with what is. A change since then that no trigger told of may be unseen.
  std::int64_t seen_boot_ns = 0;   // zero: none so far
  std::int64_t unseen_max_ns = 0;  // from the begin of one such reading to the end of the next
  std::uint64_t rereads = 0;       // rows asked for by id
  std::uint64_t malformed_ids = 0;
  KeySetMemory memory;
  std::int64_t fresh_since_boot_ns = 0;  // the end of the last time in which answers were not fresh
  OddityCounts oddities{};               // of the last load
  std::vector<LintFinding> problems;  // of the table, as the last load found it; or why it failed
  std::vector<LintFinding> findings;  // of the last load, in the order of their numbers
  bool comparing = false;             // with other sources, for the last of the findings
  std::optional<LastUsedCounts> last_used;  // nothing: its table does not want to know
};

struct LoaderStatus {
  std::string database;
  Refresh::State state = Refresh::State::kConnecting;
  std::int64_t since_boot_ns = 0;
  std::string host;        // that is connected, or tried
  std::string last_error;  // in PostgreSQL's words; empty: none so far
  std::int64_t last_error_boot_ns = 0;
  std::string trouble;  // that there is now, and what to do; empty: none
  // It is with PostgreSQL's notification queue, and passes: to start anew would make it worse.
  bool queue_in_the_way = false;
  double queue_usage = -1;  // of the notification queue, 0 to 1; negative: not known
  ServerIdentity identity;
  std::uint64_t promotions = 0;        // failovers to a later timeline
  std::uint64_t identity_changes = 0;  // another cluster, or an older copy: all was discarded
  std::uint64_t connects = 0;
  std::uint64_t failures = 0;
  std::uint64_t rounds_failed = 0;  // in which no address of any host would do
  std::uint64_t notifications = 0;
  std::uint64_t malformed_notifications = 0;
  std::uint64_t barriers = 0;
  std::int64_t barrier_us = 0;  // round trip of the last one
  std::size_t pending_ids = 0;
  // Workers that keep outdated records from being freed, and for how long they have.
  std::vector<std::string> stalled_readers;
  std::int64_t stalled_ns = 0;
  std::vector<SourceStatus> sources;
};

}  // namespace latchkey
