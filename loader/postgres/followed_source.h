// One source of a loader: the writer of its keys, the facts of its table at the last look-up, the
// current load, and the status of all this. It has no connection: lanes bring rows and query it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_set>
#include <vector>

#include "config/source.h"
#include "keymap/change_set.h"
#include "keymap/key_set.h"
#include "loader/audit.h"
#include "loader/finding.h"
#include "loader/lint.h"
#include "loader/log_limit.h"
#include "loader/overlap.h"
#include "loader/postgres/catalogue.h"
#include "loader/postgres/connection.h"
#include "loader/postgres/identity.h"
#include "loader/postgres/loader_status.h"
#include "loader/postgres/row_pipeline.h"
#include "loader/refresh.h"

namespace latchkey {

// A source, and the settings that only the loader needs.
struct LoaderSource {
  SourceConfig config;
  KeySet* keys = nullptr;
  std::unordered_set<std::string> pepper_versions;
  // Other sources, of any database, with the same key digests.
  std::vector<const KeySet*> alike;
};

class FollowedSource {
 public:
  FollowedSource(LoaderSource from, Quiescence& quiescence);

  [[nodiscard]] const SourceConfig& config() const { return settings_.config; }
  [[nodiscard]] const std::string& name() const { return status.name; }
  [[nodiscard]] KeySetWriter& writer() { return writer_; }
  [[nodiscard]] const KeySet& keys() const { return *settings_.keys; }
  [[nodiscard]] UseLog* uses() const { return settings_.keys->uses.get(); }
  void set_pepper_versions(std::unordered_set<std::string> versions);

  // ---- freshness

  // Every change that committed before `proven_ns` is in force.
  void prove(std::int64_t proven_ns, std::int64_t now_ns, std::int64_t bound_ns);
  void forget_freshness() { settings_.keys->freshness.forget(); }
  // The whole table was read or compared; the reading began at `begun_ns`.
  void seen(std::int64_t begun_ns, std::int64_t now_ns);

  // ---- a load

  // Requires `facts` of the table that will be read.
  void make_pipeline();
  void begin_load(std::int64_t now_ns, std::int64_t now_us);
  void take(std::span<const std::string_view> copy_messages);
  // Puts the load into force. Throws PgError if the COPY ended early: missing rows are not deleted
  // rows.
  void finish_load(const std::string& step);
  // Reports the result of the load in the log and the status.
  void report_load(std::int64_t now_ns, const SideRights& rights);
  void abandon_load();
  [[nodiscard]] std::int64_t load_since_ns() const { return load_since_ns_; }

  // ---- rows read by id

  // Applies the rows of the re-read of `ids`. If their types differ from the looked-up ones, it
  // applies nothing and sets `overtaken`. Returns the oddities of the rows.
  OddityCounts apply(const PgRows& rows, const std::vector<std::string>& ids, std::int64_t now_ns);
  // Events for `change_delays`: a change was notified; its rows were requested; they are in force.
  void told(std::int64_t now_ns);
  void asked();
  void answered(std::int64_t now_ns);

  // ---- findings

  // Logs problems that are new or gone. `until_then` describes their effect until they are fixed.
  void report_problems(std::vector<Finding> found, std::string_view until_then,
                       std::int64_t now_ns);
  // True once after a load: its rows must be compared with those of other sources with the same key
  // digests, a part at a time until compare_sources() returns false. The comparison takes a second
  // for ten million rows.
  [[nodiscard]] bool comparison_begins();
  [[nodiscard]] bool compare_sources(Quiescence& quiescence, std::int64_t now_ns);

  void update_status(std::int64_t now_ns);

  TableFacts facts;
  UnusableRows unusable;
  SourceStatus status;
  LogLimits log_limits;
  UndecidedAudits undecided;
  Audit* audit = nullptr;  // the current audit of this source
  // The version of the table that caused the last reload.
  std::optional<std::string> version_reloaded;
  LoadReason load_reason = LoadReason::kConnected;  // of the current or the last load
  bool overtaken = false;                           // the table's types differ from those looked up
  int refused_in_a_row = 0;  // queries refused since the last load because the table had changed
  std::optional<std::size_t> last_used;  // its number in LastUsedWriter, if last_used_at is mapped
  std::string prepared;                  // the re-read query that the session has prepared
  std::size_t prepared_rows = 0;         // rows of the table at that time

 private:
  void set_findings(std::vector<Finding> found, std::int64_t now_ns);
  void log_oddities(const OddityCounts& counts, std::int64_t now_ns);
  void log_load(std::int64_t now_ns);

  LoaderSource settings_;
  KeySetWriter writer_;
  std::optional<RowPipeline> pipeline_;
  // State of the current load.
  std::optional<ChangeSet> table_;
  ChangeReport report_;  // of the last load
  std::optional<CopyReader> copy_;
  std::optional<LoadLint> lint_;
  std::int64_t load_since_ns_ = 0;
  std::optional<OverlapWalk> overlap_;
  std::int64_t told_ns_ = 0;   // the first change with a row not yet requested; 0: none
  std::int64_t asked_ns_ = 0;  // the first change with a requested row; 0: none
};

}  // namespace latchkey
