// One source as its loader follows it: the writer of its keys, the table as it was looked up last,
// the load under way, and what is told of all this. No connection: lanes bring rows and ask it.
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

// A source, and the facts about it that only the loader needs.
struct LoaderSource {
  SourceConfig config;
  KeySet* keys = nullptr;
  std::unordered_set<std::string> pepper_versions;
  // Other sources, of any database, that digest keys in the same way.
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
  // The whole table was read, or compared, by a reading that began at `begun_ns`.
  void seen(std::int64_t begun_ns, std::int64_t now_ns);

  // ---- a load

  // `facts` are those of the table as it will be read.
  void make_pipeline();
  void begin_load(std::int64_t now_ns, std::int64_t now_us);
  void take(std::span<const std::string_view> copy_messages);
  // Brings it into force. Throws PgError if the COPY broke off before its end: rows that have not
  // come are not gone.
  void finish_load(const std::string& step);
  // Says what it has brought.
  void report_load(std::int64_t now_ns, const SideRights& rights);
  void abandon_load();
  [[nodiscard]] std::int64_t load_since_ns() const { return load_since_ns_; }

  // ---- rows read by id

  // Rows that were asked for by `ids`. If their types are not those that were looked up, nothing is
  // applied, and the source is overtaken. Returns what is odd about them.
  OddityCounts apply(const PgRows& rows, const std::vector<std::string>& ids, std::int64_t now_ns);
  // A change was notified, for `change_delays`; its rows are being asked for; they are in force.
  void told(std::int64_t now_ns);
  void asked();
  void answered(std::int64_t now_ns);

  // ---- findings

  // Logs problems that are new or gone. `until_then` says what they mean until they are mended.
  void report_problems(std::vector<LintFinding> found, std::string_view until_then,
                       std::int64_t now_ns);
  // True once after a load: rows are to be compared with those of other sources that digest keys
  // alike, a part at a time until compare_sources() is false. All of it takes a second for ten
  // million rows.
  [[nodiscard]] bool comparison_begins();
  [[nodiscard]] bool compare_sources(Quiescence& quiescence, std::int64_t now_ns);

  void update_status(std::int64_t now_ns);

  TableFacts facts;
  UnusableRows unusable;
  SourceStatus status;
  LogLimits log_limits;
  UndecidedAudits undecided;
  Audit* audit = nullptr;  // of this source, while one is under way
  // The state of the table for whose sake it was read again last.
  std::optional<std::string> version_reloaded;
  LoadReason load_reason = LoadReason::kConnected;  // of the load under way, or the last one
  bool overtaken = false;                           // the table's types are not those looked up
  int refused_in_a_row = 0;  // readings, because the table had changed; since the last load
  std::optional<std::size_t> last_used;  // its number at the LastUsedWriter, if it is written back
  std::string prepared;           // the question for changed rows that the session keeps planned
  std::size_t prepared_rows = 0;  // the table's rows then

 private:
  void set_findings(std::vector<LintFinding> found, std::int64_t now_ns);
  void log_oddities(const OddityCounts& counts, std::int64_t now_ns);
  void log_load(std::int64_t now_ns);

  LoaderSource settings_;
  KeySetWriter writer_;
  std::optional<RowPipeline> pipeline_;
  // Of the load under way.
  std::optional<ChangeSet> table_;
  ChangeReport report_;  // of the last one
  std::optional<CopyReader> copy_;
  std::optional<LoadLint> lint_;
  std::int64_t load_since_ns_ = 0;
  std::optional<OverlapWalk> overlap_;
  std::int64_t told_ns_ = 0;   // of the first change whose row is not being read yet; 0: none
  std::int64_t asked_ns_ = 0;  // of the first change whose row is being read; 0: none
};

}  // namespace latchkey
