// When to connect, listen, load, re-read, prove and give up: the whole freshness policy of one
// database, and nothing else.
//
// Pure. Events and the time go in, actions come out; the loader carries the actions out on two
// connections and reports what became of them. So every conversation can be replayed in a test,
// step by step, failing wherever one likes, without a database and without waiting.
//
// The argument, in the order in which things happen:
//   1. LISTEN commits first, then a barrier proves that we hear, then the load reads the table. A
//      change that commits after LISTEN is notified; one that committed before is in the load.
//   2. One connection (the work lane) does all reading, one thing after another. So what is
//      published later was also read later, and a slow load cannot overwrite a newer re-read.
//   3. Each source numbers its notifications as they arrive. A round of a source takes everything
//      that it has been notified of so far, applies it, and then `applied` is the number up to
//      which it took. Sources take turns on the work lane, one query each.
//   4. A barrier is a notification to ourselves with a nonce. Another connection sends it, and only
//      once the listening one has nothing to do: a pooler hands over what comes for a connection
//      while it has a query under way, and loses it otherwise. PostgreSQL delivers in commit order:
//      when the nonce is back, everything that had committed when the barrier began has been
//      notified, so has a number that is not larger than the source's `notified` is now. Once its
//      `applied` has reached that number, the source is proven complete up to the instant at which
//      the barrier began. What is left to do for one source never holds back the proof of another.
//      A sync is complete when all sources are proven by a barrier sent after it.
//   5. Any failure of either connection drops both. What had been proven stays proven, and ages;
//      after the reconnection everything is loaded anew.
//   6. A source whose table cannot be followed as it is (a trigger is gone, somebody holds a lock)
//      is suspended: it is proven no more, and ages, until a load succeeds again. The others go on.
//   7. An audit compares a digest that the database computes, on a connection of its own, with that
//      of what is known. Its result waits, as a proof does, for everything that had been notified
//      when it came back: then whatever it saw is either in force or was never told of.
//   8. A reload that notifications ask for waits for a barrier sent after that. So it sees all that
//      was notified before the barrier came back, and one transaction, however large, is one load.
//   9. Each barrier first compares the state of the tables, TRUNCATE included (version_sql()). A
//      notification that could only mean TRUNCATE asks for a barrier soon, and that decides: a
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
  std::int64_t barrier_deadline_ns = 5'000'000'000;  // a nonce that takes longer is lost
  std::int64_t backoff_min_ns = 50'000'000;
  std::int64_t backoff_max_ns = 5'000'000'000;
  std::int64_t sync_backoff_ns = 500'000'000;  // the most while somebody waits for a sync
  // Barriers that carry syncs are at least this far apart: syncs that come sooner share the next
  // one. Otherwise callers who sync in a loop would keep the database busy with barriers.
  std::int64_t sync_gap_ns = 10'000'000;
  // Reloads of a source that somebody else can cause (by a notification, by changing the table's
  // definition) come at least this far apart, and twice as far as the last one took.
  std::int64_t reload_gap_ns = 1'000'000'000;
  // Every so often, give or take a tenth, all tables are compared with what is known: that finds
  // changes that no trigger told of. Zero: never.
  std::int64_t audit_ns = 600'000'000'000;
  std::int64_t suspended_retry_ns =
      2'000'000'000;  // loads of a suspended source are this far apart
  // In one query. Its result is held as a whole: with the longest values that queries.h lets pass,
  // some 50 MB.
  std::size_t reread_ids_max = 1'000;
  std::size_t pending_ids_max = 100'000;     // of one source; more are cheaper as a reload
  std::size_t pending_bytes_max = 16 << 20;  // of these ids, which bounds memory; likewise
};

// Why a table is read as a whole.
enum class LoadReason {
  kConnected,     // whatever happened while nobody listened
  kNotified,      // TRUNCATE, or somebody asked for it
  kManyIds,       // more rows changed than it pays to ask for one by one
  kTableChanged,  // its triggers, row level security, which relation it is
  kAuditFound,    // something that nothing had told of
  kTriedAgain,    // it could not be read, or nobody tells of its changes
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
    kLive,        // in step, and told of changes
    kLost,        // was in step; connection lost
  };

  // ---- what the loader is told to do
  struct Wait {
    std::int64_t until_ns;
  };
  struct Connect {};  // both connections, LISTEN included
  struct SendBarrier {
    std::uint64_t number;  // the nonce must be unguessable; the loader makes it from this
  };
  struct Load {
    std::size_t source;
    LoadReason reason = LoadReason::kConnected;
  };
  struct Reread {
    std::size_t source;
    std::vector<std::string> ids;
  };
  // Everything that committed before `boot_ns` is in force for `sources`. `syncs` asked for no more
  // than what is in force for all sources now.
  struct Prove {
    std::int64_t boot_ns;
    std::vector<std::size_t> sources;
    std::vector<std::uint64_t> syncs;
  };
  // Have the database compute the digest of a source's table, on a connection of its own.
  struct Audit {
    std::size_t source;
  };
  // Whatever that digest has seen is in force or was never told of: compare.
  struct Compare {
    std::size_t source;
  };
  struct Disconnect {
    std::string why;
  };
  using Action =
      std::variant<Wait, Connect, SendBarrier, Load, Reread, Prove, Audit, Compare, Disconnect>;

  Refresh(std::size_t sources, RefreshSettings settings, std::uint64_t seed);

  // ---- what happened. `now_ns` is CLOCK_BOOTTIME.
  void listen_ready(std::int64_t now_ns);
  void work_ready(std::int64_t now_ns);
  // Either connection failed, or a query on it did. `others`: there are servers that have not been
  // tried since the first was. They are tried at once, and the wait between attempts grows only
  // when all have been.
  void failed(std::int64_t now_ns, bool others = false);
  void notified(std::size_t source, std::vector<std::string> ids);
  void notified_all(std::size_t source);
  // More ids than were kept: the source is read as a whole instead.
  void notified_many(std::size_t source);
  // A notification that may be true, and if it is, the next look at the tables shows it: a barrier
  // is sent soon.
  void doubted() { look_wanted_ = true; }
  // The barrier's question is answered; its nonce waits for a connection that is free to send it.
  // That may take as long as a table is read, and says nothing of what is heard.
  void barrier_held();
  // The nonce is on its way. It is lost if it takes longer than barrier_deadline_ns.
  void barrier_went(std::int64_t now_ns);
  // The server would not take it: it proves nothing, and the next one comes in its time.
  void barrier_refused(std::int64_t now_ns);
  void barrier_returned(std::uint64_t number);
  // The Load or Reread that was asked for is done and published.
  void work_done(std::int64_t now_ns);
  // It could not be done, though the connection is well; or it was done, but nobody will tell of
  // changes: the source is suspended, and loaded again after a while.
  void work_refused(std::int64_t now_ns);
  // It was not done, though all is well: the table is no longer as it was when it was looked up. So
  // nothing of it counts, and it is looked up and read anew.
  void work_overtaken(std::int64_t now_ns);
  // The digest that was asked for is here, and a notification sent after it has come in.
  void audit_returned();
  // The comparison is over: it found what it had to say. Or it wants to look closer, by another
  // Audit of the same source.
  void audit_done();
  void audit_again();
  // It could not be made; the next one comes in its time.
  void audit_failed();
  // Brings the next attempt to connect forward, if there is none under way.
  void sync_wanted(std::uint64_t sync);
  void sync_abandoned(std::uint64_t sync);
  // Load a source anew, for a reason of the loader's own.
  void reload(std::size_t source, LoadReason reason);

  // The next thing to do; call again until it is Wait.
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
    std::size_t id_bytes = 0;   // of these
    bool reload = true;
    LoadReason reason = LoadReason::kConnected;
    bool urgent = true;             // the reload is our own decision: no gap applies
    bool reload_was_urgent = true;  // the one taken last
    std::int64_t no_reload_before_ns = 0;
    std::uint64_t reload_after = 0;  // unless urgent: the barrier that has to come back before
    bool reload_asked_for =
        false;  // by a notification; the table itself has not been seen to change
    bool suspended = false;
    std::int64_t retry_ns = 0;  // if suspended
    std::uint64_t notified = 0;
    std::uint64_t applied = 0;    // everything up to this number is in force
    std::set<std::string> round;  // ids of the round under way that have not been asked for
    bool round_open = false;      // tasks of a round are waiting or under way
    std::uint64_t reaches = 0;    // what `applied` becomes when the round is done
    std::deque<Proof> proofs;     // that wait for work
    std::uint64_t proven = 0;     // the last barrier that proved it; 0: none on this connection
  };
  struct Barrier {
    std::uint64_t number;
    std::int64_t sent_ns;  // when it began
    std::int64_t lost_ns;  // when it is given up
    std::vector<std::uint64_t> syncs;
  };
  // Until all sources are proven by this barrier or a later one.
  struct SyncsUnproven {
    std::uint64_t barrier;
    std::vector<std::uint64_t> syncs;
  };
  using Task = std::variant<Load, Reread>;
  struct AuditRun {
    std::size_t source;
    std::optional<std::uint64_t> needs_applied;  // nothing: the digest is not here yet
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
  bool live_ = false;              // all that can be proven has been, on this connection
  bool ever_live_ = false;
  int failures_ = 0;
  std::int64_t failed_ns_ = 0;
  std::int64_t retry_ns_ = 0;

  std::optional<Barrier> barrier_;
  std::uint64_t barrier_number_ = 0;    // of the last one sent
  std::uint64_t barrier_returned_ = 0;  // of the last one that came back
  std::int64_t next_heartbeat_ns_ = 0;
  std::int64_t no_barrier_before_ns_ = 0;  // the server has refused the last one
  std::int64_t no_sync_before_ns_ = 0;
  std::int64_t next_audit_ns_ = 0;
  std::vector<std::uint64_t> syncs_waiting_;
  std::deque<SyncsUnproven> syncs_unproven_;
  bool look_wanted_ = false;  // at the tables, by a barrier
  std::int64_t no_look_before_ns_ = 0;

  std::optional<Task> task_;  // under way
  std::int64_t task_since_ns_ = 0;
  std::size_t turn_ = 0;  // the source whose turn on the work lane is next

  std::deque<std::size_t> audits_due_;
  std::optional<AuditRun> audit_;
};

[[nodiscard]] const char* state_name(Refresh::State state);

}  // namespace latchkey
