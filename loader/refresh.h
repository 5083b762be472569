// The freshness policy of one database: when to connect, listen, load, re-read, prove and give up.
//
// Pure. The loader passes in events and the time, carries out the returned actions on two
// connections and reports their results. So a test can replay every conversation step by step, with
// a failure at any step, without a database and without waiting.
//
// The argument, in the order in which things happen:
//   1. LISTEN commits first, then a barrier proves that notifications arrive, then the load reads
//      the table. A change that commits after LISTEN is notified; a change that committed before is
//      in the load.
//   2. One connection (the work lane) does all reading, one query after another. So data that is
//      published later was also read later, and a slow load cannot overwrite a newer re-read.
//   3. Each source numbers its notifications as they arrive. A round of a source takes all
//      notifications that have arrived so far and applies them; then `applied` is the number of the
//      last one taken. Sources take turns on the work lane, one query each.
//   4. A barrier is a notification to ourselves with a nonce. Another connection sends it, and only
//      while the listening connection is idle: a pooler forwards messages for a connection only
//      while a query of that connection runs, and loses all others. PostgreSQL delivers in commit
//      order: when the nonce is back, every change that had committed when the barrier began has
//      been notified, so its number is at most the source's present `notified`. Once the source's
//      `applied` has reached that number, the source is proven complete up to the instant at which
//      the barrier began. Remaining work of one source never delays the proof of another. A sync is
//      complete when a barrier sent after it has proven all sources.
//   5. A failure of either connection drops both. Earlier proofs stay valid, and age; after the
//      reconnection every table is loaded anew.
//   6. A source is suspended while its table cannot be followed (a trigger is missing, another
//      session holds a lock): it gets no proofs, and ages, until a load succeeds again. The other
//      sources go on.
//   7. An audit compares a digest that the database computes, on a separate connection, with the
//      digest of the loaded rows. The result waits, as a proof does, until everything that had been
//      notified when it came back is applied: then each change that the digest covers is either in
//      force or was never notified.
//   8. A reload that notifications ask for waits for a barrier sent after the request. So the load
//      sees every change notified before that barrier came back, and one transaction, however
//      large, causes one load.
//   9. Each barrier first compares the state of the tables, TRUNCATE included (version_sql()). A
//      notification that can only mean TRUNCATE requests a barrier soon, and the barrier decides: a
//      TRUNCATE that committed before the barrier began is visible to it.
#pragma once

#include <chrono>
#include <cstdint>
#include <deque>
#include <optional>
#include <random>
#include <set>
#include <string>
#include <variant>
#include <vector>

namespace latchkey {

struct RefreshSettings {
  std::int64_t heartbeat_ns = 1'000'000'000;
  std::int64_t barrier_deadline_ns = 5'000'000'000;  // a later nonce counts as lost
  std::int64_t backoff_min_ns = 50'000'000;
  std::int64_t backoff_max_ns = 5'000'000'000;
  std::int64_t sync_backoff_ns = 500'000'000;  // the maximum while a sync waits
  // Minimum distance between barriers that carry syncs; syncs that come sooner share the next one.
  // Otherwise callers that sync in a loop would keep the database busy with barriers.
  std::int64_t sync_gap_ns = 10'000'000;
  // Minimum distance between reloads of a source that others can cause (by a notification, by
  // changing the table's definition). It is at least twice the duration of the last reload.
  std::int64_t reload_gap_ns = 1'000'000'000;
  // Interval of audits, plus or minus a tenth. An audit compares all tables with the loaded rows
  // and finds changes that no trigger reported. Zero disables audits.
  std::int64_t audit_ns = 600'000'000'000;
  std::int64_t suspended_retry_ns =
      2'000'000'000;  // minimum distance of a suspended source's loads
  // Ids per query. The whole result is held in memory: with the longest values that queries.h lets
  // pass, about 50 MB.
  std::size_t reread_ids_max = 1'000;
  std::size_t pending_ids_max = 100'000;     // per source; above it a reload is cheaper
  std::size_t pending_bytes_max = 16 << 20;  // of these ids: bounds memory; above it: a reload
};

// Why a table is read as a whole.
enum class LoadReason {
  kConnected,     // there was no LISTEN until now: anything may have changed
  kNotified,      // TRUNCATE, or a notification asked for it
  kManyIds,       // too many rows changed to ask for each
  kTableChanged,  // its triggers, row level security, or the relation itself
  kAuditFound,    // a change without a notification
  kTriedAgain,    // it could not be read, or its changes are not notified
  kAuditUnsure,   // an audit could not decide
};
constexpr std::size_t kLoadReasons = 7;
[[nodiscard]] const char* load_reason_name(LoadReason reason);

class Refresh {
 public:
  enum class State {
    kConnecting,  // no connection yet, or waiting to try again; nothing loaded so far
    kListening,   // connected; proving that notifications arrive
    kLoading,     // reading all tables for the first time on this connection
    kLive,        // complete, and notified of changes
    kLost,        // was live; connection lost
  };

  // ---- actions
  struct Wait {
    std::int64_t until_ns;
  };
  struct Connect {};  // both connections, LISTEN included
  struct SendBarrier {
    std::uint64_t number;  // names the barrier; the loader draws an unguessable nonce for it
  };
  struct Load {
    std::size_t source;
    LoadReason reason = LoadReason::kConnected;
  };
  struct Reread {
    std::size_t source;
    std::vector<std::string> ids;
  };
  // For `sources`, every change that committed before `boot_ns` is in force. `syncs` are complete:
  // they need no more than is now in force for all sources.
  struct Prove {
    std::int64_t boot_ns;
    std::vector<std::size_t> sources;
    std::vector<std::uint64_t> syncs;
  };
  // The database shall compute the digest of a source's table, on a separate connection.
  struct Audit {
    std::size_t source;
  };
  // Each change that the digest covers is in force or was never notified: compare.
  struct Compare {
    std::size_t source;
  };
  struct Disconnect {
    std::string why;
  };
  using Action =
      std::variant<Wait, Connect, SendBarrier, Load, Reread, Prove, Audit, Compare, Disconnect>;

  Refresh(std::size_t sources, RefreshSettings settings, std::uint64_t seed);

  // ---- events. `now_ns` is CLOCK_BOOTTIME.
  void listen_ready(std::int64_t now_ns);
  void work_ready(std::int64_t now_ns);
  // Either connection failed, or a query on it did. `others`: this pass over the servers has not
  // tried all of them yet. The next one is tried at once; the delay between attempts grows only
  // after a whole pass.
  void failed(std::int64_t now_ns, bool others = false);
  void notified(std::size_t source, std::vector<std::string> ids);
  void notified_all(std::size_t source);
  // More ids arrived than the loader keeps: the source is loaded as a whole instead.
  void notified_many(std::size_t source);
  // A notification that the next comparison of the tables confirms or refutes: a barrier is sent
  // soon.
  void doubted() { look_wanted_ = true; }
  // The version query of the barrier has its answer; the nonce waits for a free connection. That
  // may take as long as the load of a table, and does not show whether notifications arrive.
  void barrier_held();
  // The nonce was sent. It counts as lost after barrier_deadline_ns.
  void barrier_went(std::int64_t now_ns);
  // The server refused the barrier: it proves nothing, and the next one is sent at its regular
  // time.
  void barrier_refused(std::int64_t now_ns);
  void barrier_returned(std::uint64_t number);
  // The requested Load or Reread is done and published.
  void work_done(std::int64_t now_ns);
  // The task failed although the connection works, or it succeeded but changes will not be
  // notified. The source is suspended, and loaded again after a delay.
  void work_refused(std::int64_t now_ns);
  // The task was discarded: the table's definition has changed since it was looked up. It is looked
  // up and loaded anew.
  void work_overtaken(std::int64_t now_ns);
  // The requested digest has arrived, and so has a notification sent after it.
  void audit_returned();
  // audit_done(): the comparison has reported its findings. audit_again(): it needs another Audit
  // of the same source for details.
  void audit_done();
  void audit_again();
  // The audit failed; the next one starts at its regular time.
  void audit_failed();
  // Brings the next attempt to connect forward, unless one is under way.
  void sync_wanted(std::uint64_t sync);
  void sync_abandoned(std::uint64_t sync);
  // Requests a load of a source, for a reason of the loader's own.
  void reload(std::size_t source, LoadReason reason);

  // Returns the next action; call again until it is Wait.
  [[nodiscard]] Action next(std::int64_t now_ns);

  [[nodiscard]] State state() const;
  [[nodiscard]] bool suspended(std::size_t source) const { return sources_.at(source).suspended; }
  [[nodiscard]] std::size_t pending_ids() const;

 private:
  struct Proof {
    std::uint64_t needs_applied;
    std::uint64_t barrier;
    std::int64_t boot_ns;
  };
  struct Source {
    std::set<std::string> ids;  // notified since the round began
    std::size_t id_bytes = 0;   // total size of `ids`
    bool reload = true;
    LoadReason reason = LoadReason::kConnected;
    bool urgent = true;             // the reload is our own decision: it keeps no gap
    bool reload_was_urgent = true;  // `urgent` of the last reload that began
    std::int64_t no_reload_before_ns = 0;
    std::uint64_t reload_after = 0;  // unless urgent: the barrier that must come back first
    bool reload_asked_for = false;   // by a notification; no change of the table itself was seen
    bool suspended = false;
    std::int64_t retry_ns = 0;  // next load while suspended
    std::uint64_t notified = 0;
    std::uint64_t applied = 0;    // all notifications up to this number are in force
    std::set<std::string> round;  // ids of the current round that no query has asked for
    bool round_open = false;      // tasks of a round wait or run
    std::uint64_t reaches = 0;    // the new `applied` when the round is done
    std::deque<Proof> proofs;     // they wait for work
    std::uint64_t proven = 0;     // by this barrier, the last one; 0: none on this connection
  };
  struct Barrier {
    std::uint64_t number;
    std::int64_t sent_ns;  // when it began
    std::int64_t lost_ns;  // when it counts as lost
    std::vector<std::uint64_t> syncs;
  };
  // These syncs wait until this barrier or a later one has proven all sources.
  struct SyncsUnproven {
    std::uint64_t barrier;
    std::vector<std::uint64_t> syncs;
  };
  using Task = std::variant<Load, Reread>;
  struct AuditRun {
    std::size_t source;
    std::optional<std::uint64_t> needs_applied;  // nullopt: the digest has not arrived
    bool comparing = false;
  };

  void want_load(Source& source, LoadReason reason);
  Source& give_up_task(std::int64_t now_ns);
  [[nodiscard]] std::int64_t load_due_ns(const Source& source) const;
  [[nodiscard]] bool a_load_waits_for_a_barrier() const;
  static void drop_ids(Source& source);
  void keep_gap(Source& source, std::int64_t now_ns) const;
  [[nodiscard]] std::optional<Task> next_task(std::size_t index, std::int64_t now_ns);
  [[nodiscard]] std::optional<Action> begin_task(std::int64_t now_ns);
  [[nodiscard]] std::optional<Action> next_listen(std::int64_t now_ns);
  [[nodiscard]] std::optional<Action> next_work(std::int64_t now_ns);
  [[nodiscard]] std::optional<Action> next_audit(std::int64_t now_ns);
  [[nodiscard]] std::optional<Action> next_proof();
  [[nodiscard]] std::vector<std::uint64_t> take_proven_syncs();
  [[nodiscard]] bool any_suspended() const;
  void note_live();
  void release_syncs();
  [[nodiscard]] std::int64_t wake_ns() const;
  [[nodiscard]] std::int64_t backoff_ns(bool others);
  [[nodiscard]] std::int64_t random_up_to(std::int64_t ns);
  void hurry();
  void plan_audit(std::int64_t now_ns);

  RefreshSettings settings_;
  std::mt19937_64 random_;
  std::vector<Source> sources_;

  enum class Lane { kDown, kConnecting, kReady };
  Lane listen_ = Lane::kDown;
  Lane work_ = Lane::kDown;
  bool proven_listening_ = false;  // a barrier has come back on this connection
  bool live_ = false;              // every source that is not suspended has been proven
  bool ever_live_ = false;
  int failures_ = 0;
  std::int64_t failed_ns_ = 0;
  std::int64_t retry_ns_ = 0;

  std::optional<Barrier> barrier_;
  std::uint64_t barrier_number_ = 0;    // the last one sent
  std::uint64_t barrier_returned_ = 0;  // the last one that came back
  std::int64_t next_heartbeat_ns_ = 0;
  std::int64_t no_barrier_before_ns_ = 0;  // after the server refused the last one
  std::int64_t no_sync_before_ns_ = 0;
  std::int64_t next_audit_ns_ = 0;
  std::vector<std::uint64_t> syncs_waiting_;
  std::deque<SyncsUnproven> syncs_unproven_;
  bool look_wanted_ = false;  // a barrier shall compare the tables soon
  std::int64_t no_look_before_ns_ = 0;

  std::optional<Task> task_;  // under way
  std::int64_t task_since_ns_ = 0;
  std::size_t turn_ = 0;  // the next source on the work lane

  std::deque<std::size_t> audits_due_;
  std::optional<AuditRun> audit_;
};

[[nodiscard]] const char* state_name(Refresh::State state);

}  // namespace latchkey
