// Both connections to one server, for as long as both live: first the handshake between them, then
// the policy's tasks. Any failure ends the link; the loader makes a new one.
#pragma once

#include <poll.h>

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

#include "loader/handshake.h"
#include "loader/postgres/auditing.h"
#include "loader/postgres/followed_database.h"
#include "loader/postgres/heartbeat.h"
#include "loader/postgres/listening.h"
#include "loader/postgres/reading.h"

namespace latchkey {

class Link {
 public:
  // Begins to connect. Throws PgError.
  Link(FollowedDatabase& database, const PgHost& server, std::int64_t now_ns);
  Link(const Link&) = delete;
  Link& operator=(const Link&) = delete;

  // Does all work that needs no waiting. Throws PgError, and std::runtime_error for nonsensical
  // answers.
  void turn();

  // Tasks of the policy.
  Reading& reading() { return reading_; }
  Heartbeat& heartbeat() { return heartbeat_; }
  Auditing& auditing() { return auditing_; }

  [[nodiscard]] const PgConnection& listening() const { return listening_.connection(); }
  [[nodiscard]] bool shaking_hands() const { return !handshake_.over(); }
  // True if the link uses the database's third connection.
  [[nodiscard]] bool has_third() const {
    return auditing_.third() != nullptr || heartbeat_.third() != nullptr;
  }

  // The sockets to wait for, and the latest time to wake.
  struct Waits {
    std::array<pollfd, 3> sockets{};
    std::size_t count = 0;
    std::int64_t until_ns = 0;
  };
  [[nodiscard]] Waits waits(std::int64_t now_ns) const;

 private:
  void step_handshake(std::int64_t now_ns);
  void take_progress(bool works, double usage);
  void meet();
  [[nodiscard]] bool awaits(std::string_view payload) const;
  void take_notices();
  void take_own(std::string_view payload);
  void take_change(const NoticeQueue::Change& change);
  void take_ids(std::size_t index, const std::vector<std::string>& named);
  void take_too_many(std::size_t index);
  void check_deadlines(std::int64_t now_ns) const;

  FollowedDatabase& database_;
  Listening listening_;
  Reading reading_;
  Handshake handshake_;
  Auditing auditing_;
  Heartbeat heartbeat_;
  std::string meeting_;  // the handshake's nonce; empty: none was sent
};

}  // namespace latchkey
