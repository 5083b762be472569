#include "loader/postgres/identity_alarm.h"

#include <spdlog/spdlog.h>

#include <optional>
#include <string>

#include "loader/postgres/answers.h"

namespace latchkey {
namespace {

// Describes how the server differs from the one before.
std::string difference(IdentityChange change, const ServerIdentity& before,
                       const ServerIdentity& found, Lsn furthest) {
  if (change == IdentityChange::kOtherSystem) {
    return "system identifier " + found.system + " instead of " + before.system;
  }
  if (change == IdentityChange::kOlderTimeline) {
    return "timeline " + std::to_string(found.timeline) + " after " +
           std::to_string(before.timeline);
  }
  const bool behind = found.position.inserted < furthest;
  return (behind ? "WAL position " + show_lsn(found.position.inserted)
                 : "started anew from WAL position " + show_lsn(found.checkpoint)) +
         " after " + show_lsn(furthest) + " on timeline " + std::to_string(found.timeline);
}

}  // namespace

void take_identity(FollowedDatabase& database, const PgRows& rows) {
  const ServerIdentity found = read_identity(rows);
  const std::optional<ServerIdentity> before = database.history.last();
  const Lsn furthest = database.history.furthest(found.timeline);
  const Lsn last_furthest = before ? database.history.furthest(before->timeline) : 0;
  const IdentityChange change = database.history.met(found);
  const bool promoted = change == IdentityChange::kPromotion;
  const bool discard = change != IdentityChange::kNone && !promoted;
  if (promoted) {
    spdlog::warn("database \"{}\": another server is the primary now ({}, timeline {} after {}){}",
                 database.config.name, database.host, found.timeline, before->timeline,
                 found.position.inserted < last_furthest
                     ? ". It lacks the last transactions of the one before, revocations perhaps"
                     : "");
  } else if (discard) {
    spdlog::error(
        "database \"{}\": ALARM: {} is not the server that was followed so far ({}). It may have"
        " been restored from a backup, or an old primary may be back, and revocations may be"
        " undone. All keys are refused as unavailable until its tables are loaded anew.",
        database.config.name, database.host, difference(change, *before, found, furthest));
    for (const auto& source : database.sources) source->forget_freshness();
  }
  database.board.update([&](LoaderStatus& status) {
    status.identity = found;
    if (promoted) ++status.promotions;
    if (discard) ++status.identity_changes;
  });
}

}  // namespace latchkey
