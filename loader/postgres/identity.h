// Detects which server answers: after a failover or a restore, another one may have the same name.
//
// Pure. All of this is additional information: without the right to ask for it, less is detected
// and a finding says so; keys are followed all the same.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "config/source.h"
#include "loader/finding.h"

namespace latchkey {

// A position in the write-ahead log, pg_lsn. Zero: unknown.
using Lsn = std::uint64_t;
[[nodiscard]] std::optional<Lsn> parse_lsn(const std::string& text);  // "16/B374D848"
[[nodiscard]] std::string show_lsn(Lsn lsn);

// Rights of the role beyond those that the freshness bound needs. By default every role has them.
struct SideRights {
  bool system = false;         // the system identifier
  bool position = false;       // timeline and WAL positions
  bool start = false;          // its start time, its last checkpoint
  bool queue = false;          // the usage of the notification queue
  bool subscriptions = false;  // which tables logical replication writes to
};
constexpr int kSideRights = 5;
// Returns one row: a boolean for each right, in this order.
[[nodiscard]] std::string side_rights_sql();
// The missing rights and their consequences; nullopt if the role has all.
[[nodiscard]] std::optional<Finding> missing_rights(const SideRights& rights);

struct WalPosition {
  Lsn inserted = 0;  // the end of the last record
  Lsn flushed = 0;   // on disk up to here, possibly inside a record
};

struct ServerIdentity {
  std::string system;          // set by initdb; empty: unknown
  std::uint32_t timeline = 0;  // grows with each promotion; zero: unknown
  WalPosition position;
  std::string started;  // start time; empty: unknown
  Lsn checkpoint = 0;   // the last checkpoint
};
// Returns one row, six columns of text or NULL: the members above. All copies of a cluster share
// the system identifier; timelines: PostgreSQL manual, "Timelines".
[[nodiscard]] std::string identity_sql(const SideRights& rights);

// The query of each heartbeat, without parameters. Returns one row, four columns of text:
// versions_sql(), and, or NULL: position inserted, position flushed, usage of the notification
// queue (0 to 1).
[[nodiscard]] std::string heartbeat_sql(const std::vector<const SourceConfig*>& sources,
                                        const SideRights& rights);

// Asks whether the backend with PID $1 is at work, and for the usage of the notification queue.
// Returns one row, two columns of text: "true" or "false" ("true" also if there is no such backend:
// a pooler has invented the PID); 0 to 1, or NULL.
[[nodiscard]] std::string listen_progress_sql(const SideRights& rights);

enum class IdentityChange {
  kNone,
  kPromotion,      // a later timeline of the same cluster: an ordinary failover
  kOlderTimeline,  // an earlier timeline: restored from a backup, or an old primary is back
  kOlderPosition,  // the same timeline, at a position that it had passed: a restored snapshot
  kOtherSystem,    // another cluster
};

// Remembers the furthest position of each timeline.
//
// A server that crashes loses WAL that it had not flushed; that is no alarm. The flushed WAL may
// end inside a record, which recovery drops. So only the end of a record counts, once all WAL up to
// it has been flushed.
//
// A restored server may have written more WAL than was lost before the daemon meets it. But if it
// was restarted, its last checkpoint is the one that ended its last run or its recovery: on an
// unrestored server this checkpoint lies after all WAL that had been flushed before.
class ServerHistory {
 public:
  // A connection to this server was made; the history now refers to it. A value that only one of
  // the two servers reports is not compared.
  IdentityChange met(const ServerIdentity& now);
  // Records a position of the server met last.
  void reached(const WalPosition& position);

  [[nodiscard]] const std::optional<ServerIdentity>& last() const { return last_; }
  // The furthest durable position on this timeline; zero: none known.
  [[nodiscard]] Lsn furthest(std::uint32_t timeline) const;

 private:
  [[nodiscard]] IdentityChange change_to(const ServerIdentity& now) const;

  std::optional<ServerIdentity> last_;
  std::map<std::uint32_t, Lsn> furthest_;
  Lsn unflushed_ = 0;  // the end of a record that counts once it is flushed
};

}  // namespace latchkey
