// A barrier (refresh.h, 4 and 9): the listening connection asks for the state of the tables; then,
// while it is idle, another connection sends a nonce that the listening one must receive. The
// reading connection sends it, or, if that is busy for long, an extra connection.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "loader/postgres/auditing.h"
#include "loader/postgres/connection.h"
#include "loader/postgres/echo_lane.h"
#include "loader/postgres/followed_database.h"
#include "loader/postgres/listening.h"
#include "loader/postgres/reading.h"

namespace latchkey {

class Heartbeat {
 public:
  // All arguments must outlive this.
  Heartbeat(FollowedDatabase& database, Listening& listening, Reading& reading, Auditing& auditing)
      : database_(database), listening_(listening), reading_(reading), auditing_(auditing) {}

  // Begins the policy's barrier `number`.
  void begin(std::uint64_t number);
  [[nodiscard]] bool awaits(std::string_view payload) const {
    return !nonce_.empty() && payload == nonce_;
  }
  // Takes a notification on our channel, in its order among the changes.
  void heard(std::string_view payload) { nonce_back_ = nonce_back_ || awaits(payload); }
  // Reports a returned nonce to the policy.
  void turn_nonce();
  // Sends a waiting nonce as soon as a connection is free.
  void turn_echo(std::int64_t now_ns);

  // The extra connection for the nonce; null if there is none. It is the third connection of a
  // database, and shares that place with audits and the writing of last uses.
  [[nodiscard]] const PgConnection* third() const { return lane_ ? &lane_->connection() : nullptr; }
  // The time at which turn_echo() may have work without an event.
  [[nodiscard]] std::int64_t wake_ns(std::int64_t now_ns) const;

 private:
  void take(const PgRows& rows);
  void take_versions(std::string_view text);
  void turn_lane(std::int64_t now_ns);
  void echo_by_reading(std::int64_t now_ns);
  void echo_by_lane(std::int64_t now_ns);
  void refused(const PgQueryError& error);

  FollowedDatabase& database_;
  Listening& listening_;
  Reading& reading_;
  Auditing& auditing_;
  std::uint64_t number_ = 0;
  std::int64_t sent_ns_ = 0;
  std::string nonce_;  // empty: none was sent
  bool nonce_back_ = false;
  std::int64_t wanted_ns_ = 0;  // when the waiting nonce began to wait; 0: none waits
  std::optional<EchoLane> lane_;
  bool by_lane_ = false;  // the extra connection sent the nonce
  std::int64_t no_lane_before_ns_ = 0;
};

}  // namespace latchkey
