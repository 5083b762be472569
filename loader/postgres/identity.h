// Which server answers? After a failover or a restore, another one may stand behind the same name.
//
// Pure. All of it is side information: where the role may not ask, less is noticed, and a finding
// says so; keys are followed all the same.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "config/source.h"
#include "loader/finding.h"

namespace latchkey {

// A position in the write-ahead log, pg_lsn. Zero: not known.
using Lsn = std::uint64_t;
[[nodiscard]] std::optional<Lsn> parse_lsn(const std::string& text);  // "16/B374D848"
[[nodiscard]] std::string show_lsn(Lsn lsn);

// What the role may ask the server beside what the promise needs. By default everybody may.
struct SideRights {
  bool system = false;         // the system identifier
  bool position = false;       // timeline and WAL positions
  bool start = false;          // when it was started, its last checkpoint
  bool queue = false;          // how full the notification queue is
  bool subscriptions = false;  // which tables logical replication writes to
};
constexpr int kSideRights = 5;
// One row, a boolean for each, in this order.
[[nodiscard]] std::string side_rights_sql();
// What the role may not ask, and what follows; nothing if it may ask everything.
[[nodiscard]] std::optional<LintFinding> missing_rights(const SideRights& rights);

struct WalPosition {
  Lsn inserted = 0;  // the end of the last record
  Lsn flushed = 0;   // on disk up to here, be it the middle of a record
};

struct ServerIdentity {
  std::string system;          // chosen by initdb; empty: not known
  std::uint32_t timeline = 0;  // grows with each promotion; zero: not known
  WalPosition position;
  std::string started;  // when; empty: not known
  Lsn checkpoint = 0;   // the last one
};
// One row, six columns of text or NULL: the members above. The identifier is shared by all copies
// of a cluster; timelines: PostgreSQL manual, "Timelines".
[[nodiscard]] std::string identity_sql(const SideRights& rights);

// What each heartbeat asks, without parameters. One row, four columns of text: versions_sql(), and
// or NULL: position inserted, position flushed, how full the notification queue is (0 to 1).
[[nodiscard]] std::string heartbeat_sql(const std::vector<const SourceConfig*>& sources,
                                        const SideRights& rights);

// Is the backend with process id $1 at work, and how full is the notification queue? One row, two
// columns of text: "true" or "false" (true also if there is no such backend: a pooler has made the
// number up); 0 to 1, or NULL.
[[nodiscard]] std::string listen_progress_sql(const SideRights& rights);

enum class IdentityChange {
  kNone,
  kPromotion,      // a later timeline of the same cluster: an ordinary failover
  kOlderTimeline,  // an earlier one: restored from a backup, or an old primary is back
  kOlderPosition,  // the same one, at a position that it had passed: a snapshot was restored
  kOtherSystem,    // another cluster altogether
};

// Remembers how far each timeline had come.
//
// A server that crashes loses what it had not flushed, and that is no alarm. What had been flushed
// may be a part of a record, which recovery drops. So only the end of a record counts, once all up
// to there has been flushed.
//
// A restored server may have written more than was lost before we see it. But where it was started
// anew, its last checkpoint is that which ended its last life or its recovery: this one lies behind
// everything that had been flushed before.
class ServerHistory {
 public:
  // A connection was made, to this server; from now on it counts. What is known of one of them
  // alone says nothing.
  IdentityChange met(const ServerIdentity& now);
  // Of the server met last.
  void reached(const WalPosition& position);

  [[nodiscard]] const std::optional<ServerIdentity>& last() const { return last_; }
  // The furthest durable position on this timeline; zero: none is known.
  [[nodiscard]] Lsn furthest(std::uint32_t timeline) const;

 private:
  [[nodiscard]] IdentityChange change_to(const ServerIdentity& now) const;

  std::optional<ServerIdentity> last_;
  std::map<std::uint32_t, Lsn> furthest_;
  Lsn unflushed_ = 0;  // the end of a record that counts once it has been flushed
};

}  // namespace latchkey
