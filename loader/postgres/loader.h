// One database, one thread: keeps the key sets of its sources in step with their tables.
//
// The thread is a shell. It asks Refresh what to do, does it on two connections (one listens, one
// reads) and sometimes a third, and reports what became of it. It is the only writer of its key
// sets.
#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <unordered_set>
#include <vector>

#include "base/histogram.h"
#include "config/source.h"
#include "keymap/key_set.h"
#include "loader/finding.h"
#include "loader/log_limit.h"
#include "loader/overlap.h"
#include "loader/postgres/audit_lane.h"
#include "loader/postgres/connection.h"
#include "loader/postgres/echo_lane.h"
#include "loader/postgres/identity.h"
#include "loader/postgres/last_used_writer.h"
#include "loader/postgres/notices.h"
#include "loader/postgres/row.h"
#include "loader/postgres/session_setup.h"
#include "loader/refresh.h"

namespace latchkey {

struct DatabaseConfig {
  std::string name;
  PgTarget target;
  RefreshSettings refresh;
  // Older answers are not fresh: for the status, which tells since when they are.
  std::int64_t bound_ns = 5'000'000'000;
  std::int64_t last_used_flush_ns = 5'000'000'000;
};

// A source and what only the loader needs to know of it.
struct LoaderSource {
  SourceConfig config;
  KeySet* keys = nullptr;
  std::unordered_set<std::string> pepper_versions;
  // Other sources, of any database, that digest keys in the same way.
  std::vector<const KeySet*> alike;
};

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

class Loader {
 public:
  // `keys` of the sources and `quiescence` outlive the loader.
  Loader(DatabaseConfig database, std::vector<LoaderSource> sources, Quiescence& quiescence);
  // Stops the thread. No reader may be left.
  ~Loader();
  Loader(const Loader&) = delete;
  Loader& operator=(const Loader&) = delete;

  void start();
  // Asks the thread to end, and does not wait.
  void request_stop();
  // Its thread has ended, or was never started. Until then it may hang in a file system or a
  // resolver, which nothing can interrupt.
  [[nodiscard]] bool ended() const { return ended_; }
  // Asks and waits.
  void stop();

  // Why it cannot get ready, one paragraph each. `final` if trying again cannot help.
  struct Unready {
    std::vector<LintFinding> why;
    bool final = false;
  };
  // Waits for the first complete and proven load of all sources. Returns early on what only an
  // operator can mend, and (with `first_attempt_only`) once every server has been tried in vain.
  [[nodiscard]] std::optional<Unready> wait_ready(std::chrono::milliseconds timeout,
                                                  bool first_attempt_only);

  // Waits until the findings of the loads so far are complete; false if they are not in time.
  [[nodiscard]] bool wait_linted(std::chrono::milliseconds timeout);

  // Calls `done` on the loader's thread once everything that had committed when sync() was called
  // is in force. Never, if the loader stops first: the caller keeps its own deadline.
  [[nodiscard]] std::uint64_t sync(std::function<void()> done);
  void abandon_sync(std::uint64_t id);

  // New pepper versions are at hand.
  void set_pepper_versions(const std::string& source, std::unordered_set<std::string> versions);

  [[nodiscard]] LoaderStatus status() const;
  // When its thread last turned its loop (awake_ns()). It does so at least every second, unless one
  // step takes long: the end of a load of millions of changes, a host name that does not resolve.
  [[nodiscard]] std::int64_t ticked_ns() const { return ticked_ns_; }
  [[nodiscard]] const std::string& database() const { return database_.name; }

 private:
  struct Source;

  void run();
  void post(std::function<void()> task);
  void wake() const;
  void run_posted();
  void act();
  void wait(std::int64_t until_ns);
  void turn();

  void connect();
  [[nodiscard]] bool try_next_server();
  void listen_connected();
  void watch_listen();
  void take_listen_progress(bool works, double usage);
  [[nodiscard]] std::vector<const SourceConfig*> configs() const;
  void prepare_heartbeat();
  void identify();
  void take_identity(const ServerIdentity& found);
  void inspect(std::size_t index);
  void inspected();
  void meet();
  void meeting_refused(const PgQueryError& error);
  void look_up_table(std::size_t index, std::function<void()> done);
  void send_barrier(std::uint64_t number);
  void take_heartbeat(const PgRows& rows);
  void turn_echo();
  void turn_echo_lane(std::int64_t now_ns);
  void echo_over_work();
  void echo_over_lane();
  void echo_sent();
  void echo_refused(const PgQueryError& error);
  void barrier_back();
  void set_trouble(const std::string& what, bool queue_in_the_way = false);
  void load(std::size_t index, LoadReason reason);
  void copy(std::size_t index);
  [[nodiscard]] std::function<void(const PgQueryError&)> refusal_handler(std::size_t index);
  void overtaken(std::size_t index);
  void suspend(std::size_t index, std::vector<LintFinding> why);
  void report_problems(Source& source, std::vector<LintFinding> found, std::string_view until_then);
  void load_done(std::size_t index);
  void compare_sources(std::size_t index);
  void set_findings(Source& source, std::vector<LintFinding> found);
  void serve_owner(const Source& source, const std::function<void()>& done);
  // Of the reading session, which is a new one.
  void forget_prepared();
  void send_each(const std::vector<std::string>& statements, std::size_t from,
                 const std::function<void()>& done);
  void reread(std::size_t index, std::vector<std::string> ids);
  void read_rows(std::size_t index, const std::vector<std::string>& ids);
  void read_prepared(std::size_t index, const std::vector<std::string>& ids);
  void apply_reread(std::size_t index, const PgRows& rows, const std::vector<std::string>& ids);
  void take_versions(std::string_view json);
  void audit(std::size_t index);
  void begin_audit();
  void compare(std::size_t index);
  void audit_undecided(std::size_t index);
  void seen(Source& source, std::int64_t begun_ns);
  void fail_audit(std::size_t index, const std::string& why);
  void turn_audit();
  void stamp(Source& source, std::int64_t proven_ns);
  void prove(const Refresh::Prove& prove);
  // `advice` is for whoever starts the daemon, not for the log of a running one.
  void fail(const std::string& why, const std::string& advice = "", bool final = false);
  void disconnect();
  void drain_notifications();
  void hear(const PgNotification& notification);
  void take_notices();
  void take_own(const std::string& payload);
  void take_change(const NoticeQueue::Change& change);
  void take_ids(std::size_t index, const std::vector<std::string>& named);
  void take_too_many(std::size_t index);
  void log_oddities(Source& source, const OddityCounts& counts);
  void publish_status();
  void collect();
  // A connection that works, or null.
  [[nodiscard]] const PgConnection* alive() const;

  DatabaseConfig database_;
  Quiescence& quiescence_;
  std::vector<std::unique_ptr<Source>> sources_;
  StallWatch stall_watch_;
  std::int64_t stall_logged_ns_ = 0;  // how long the stall had lasted when it was last logged
  std::vector<PgHost> hosts_;
  std::size_t host_ = 0;  // that is connected, or tried
  // Of that host; none: it has to be resolved. Each has an attempt, and a deadline, of its own.
  std::vector<PgHost> addresses_;
  std::size_t address_ = 0;
  Refresh refresh_;
  LastUsedWriter last_used_;

  ServerHistory history_;
  SideRights side_rights_;

  std::unique_ptr<PgConnection> listen_;
  std::unique_ptr<PgConnection> work_;
  std::int64_t listen_deadline_ns_ = 0;  // of the step under way
  std::int64_t work_deadline_ns_ = 0;
  bool listening_ = false;  // LISTEN is committed
  bool inspected_ = false;  // the reading connection has done its part
  // Nonces, by which another connection is heard on the listening one. There is one only while the
  // listening connection has no query under way: see Refresh, 4.
  std::string meeting_;  // of the reading connection, before anything else
  bool met_ = false;
  std::int64_t meet_again_ns_ = kNoDeadline;
  std::int64_t listen_since_ns_ = 0;   // LISTEN is under way
  std::int64_t listen_looked_ns_ = 0;  // how far it is was asked
  bool inspecting_ = false;            // from connecting until all tables have been looked up
  SessionOwner session_owner_;         // of the reading connection
  std::string work_step_;              // what the reading connection is doing, for messages
  std::string heartbeat_channel_;
  std::uint64_t barrier_number_ = 0;
  std::int64_t barrier_sent_ns_ = 0;
  std::int64_t echo_wanted_ns_ = 0;  // since when its nonce waits to be sent; zero: it does not
  std::string nonce_;
  bool nonce_back_ = false;
  bool echoing_ = false;              // the reading connection sends it
  std::function<void()> after_echo_;  // what the reading connection does then
  std::optional<EchoLane> echo_lane_;
  bool echo_by_lane_ = false;
  std::int64_t no_echo_lane_before_ns_ = 0;
  std::vector<std::string> tables_;                   // of the sources, each once
  std::vector<std::vector<std::size_t>> sources_of_;  // each of these tables
  NoticeQueue notices_;
  std::uint64_t notifications_ = 0;
  std::uint64_t malformed_notifications_ = 0;
  LogLimit failure_limit_;  // of the last error
  LogLimit live_limit_;
  LogLimit trouble_limit_;

  std::optional<AuditLane> audit_;
  std::optional<std::size_t> audit_wanted_;  // of this source, as soon as the connection is free

  std::map<std::uint64_t, std::function<void()>> syncs_;

  // Shared with other threads.
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<std::function<void()>> posted_;
  LoaderStatus status_;
  bool ready_ = false;
  std::optional<Unready> unready_;
  std::atomic<bool> stopping_{false};
  std::atomic<bool> ended_{true};
  std::atomic<std::int64_t> ticked_ns_;
  std::atomic<std::uint64_t> next_sync_{1};
  int wake_fd_;
  std::thread thread_;
};

}  // namespace latchkey
