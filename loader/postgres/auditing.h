// Audits (refresh.h, 7), one at a time: lets the database compute the digest of a source's table,
// compares it with the map, and reports the result. AuditLane owns the connection.
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
  // Both arguments must outlive this.
  Auditing(FollowedDatabase& database, Listening& listening)
      : database_(database), listening_(listening) {}
  ~Auditing() { end(); }
  Auditing(const Auditing&) = delete;
  Auditing& operator=(const Auditing&) = delete;

  // The policy requests an audit of this source, or the second look of the current audit.
  void audit(std::size_t index);
  // Every change that the digest covers is in force, or was never notified.
  void compare(std::size_t index);
  // Does all work that needs no waiting. `third_free`: heartbeats do not need the database's third
  // connection.
  void turn(std::int64_t now_ns, bool third_free);
  // Aborts the current audit.
  void fail(const std::string& why);

  [[nodiscard]] bool under_way() const { return lane_.has_value(); }
  [[nodiscard]] bool awaits(std::string_view payload) const {
    return lane_ && lane_->awaits(payload);
  }
  void heard(std::string_view payload) {
    if (lane_) lane_->heard(payload);
  }
  // Null if there is no connection.
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
  std::optional<std::size_t> wanted_;  // the source to audit as soon as the connection is free
};

}  // namespace latchkey
