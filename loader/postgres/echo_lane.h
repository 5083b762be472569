// A connection that sends a heartbeat's notification while the reading connection is busy with a
// table.
//
// It is the third connection of a database, shares that place with audits and the writing of last
// uses, and lives only as long as a long load.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "loader/postgres/connection.h"

namespace latchkey {

class EchoLane {
 public:
  // Begins to connect. Throws PgError.
  EchoLane(const PgTarget& target, const PgHost& host, std::int64_t now_ns);

  [[nodiscard]] const PgConnection& connection() const { return connection_; }
  [[nodiscard]] std::int64_t deadline_ns() const { return deadline_ns_; }
  // True if send() may be called.
  [[nodiscard]] bool ready() const { return prepared_ && connection_.idle(); }
  // Does all work that needs no waiting. Throws PgError; the lane is then unusable.
  void advance(std::int64_t now_ns);
  // Notifies; calls `refused` if the server refuses.
  void send(const std::string& channel, const std::string& nonce,
            std::function<void(const PgQueryError&)> refused);

 private:
  PgConnection connection_;
  bool asked_ = false;
  bool prepared_ = false;
  std::int64_t deadline_ns_;
};

}  // namespace latchkey
