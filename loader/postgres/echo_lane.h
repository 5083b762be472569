// A connection that sends a heartbeat's notification while the reading one is busy with a table.
//
// It is the third of a database, so it takes turns with audits and the writing of last uses, and is
// there only as long as a long reading is.
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
  // send() may be called.
  [[nodiscard]] bool ready() const { return prepared_ && connection_.idle(); }
  // Does what can be done without waiting. Throws PgError; then it is of no more use.
  void advance(std::int64_t now_ns);
  // Notifies; `refused` if the server would not.
  void send(const std::string& channel, const std::string& nonce,
            std::function<void(const PgQueryError&)> refused);

 private:
  PgConnection connection_;
  bool asked_ = false;
  bool prepared_ = false;
  std::int64_t deadline_ns_;
};

}  // namespace latchkey
