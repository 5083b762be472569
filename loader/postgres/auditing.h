// Audits (refresh.h, 7), one at a time: has the database compute a digest of a source's table,
// compares it with the map, and says what that means. The connection is AuditLane's.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "loader/postgres/audit_lane.h"
#include "loader/postgres/followed_database.h"
#include "loader/postgres/listening.h"

namespace latchkey {

class Auditing {
 public:
  // Both outlive it.
  Auditing(FollowedDatabase& database, Listening& listening)
      : database_(database), listening_(listening) {}
  ~Auditing() { end(); }
  Auditing(const Auditing&) = delete;
  Auditing& operator=(const Auditing&) = delete;

  // The policy wants an audit of this source, or a second look of the one under way.
  void audit(std::size_t index);
  // Everything that the digest has seen is in force, or was never notified.
  void compare(std::size_t index);
  // Does what can be done without waiting. `third_free`: the third connection of the database is
  // not needed for heartbeats.
  void turn(std::int64_t now_ns, bool third_free);
  // Gives up the audit under way.
  void fail(const std::string& why);

  [[nodiscard]] bool under_way() const { return lane_.has_value(); }
  [[nodiscard]] bool awaits(std::string_view payload) const {
    return lane_ && lane_->awaits(payload);
  }
  void heard(std::string_view payload) {
    if (lane_) lane_->heard(payload);
  }
  // Null: there is no connection.
  [[nodiscard]] const PgConnection* third() const { return lane_ ? &lane_->connection() : nullptr; }
  [[nodiscard]] std::int64_t deadline_ns() const;

 private:
  void begin(std::int64_t now_ns, bool third_free);
  void differs(FollowedSource& source, std::size_t index);
  void undecided(FollowedSource& source, std::size_t index);
  void failed(std::size_t index, const std::string& why);
  void end();

  FollowedDatabase& database_;
  Listening& listening_;
  std::optional<AuditLane> lane_;
  std::optional<std::size_t> wanted_;  // as soon as the connection is free
};

}  // namespace latchkey
