// The connection that listens: it hears changes and our own nonces, and asks the heartbeat's
// question. It touches no table of a source, so no code of a table's owner runs in its session.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "loader/postgres/connection.h"
#include "loader/postgres/followed_database.h"
#include "loader/postgres/notices.h"

namespace latchkey {

class Listening {
 public:
  // Begins to connect. Throws PgError.
  Listening(FollowedDatabase& database, const PgHost& server);

  [[nodiscard]] const PgConnection& connection() const { return connection_; }
  // On which nonces come: one of this connection's own, so that other daemons' heartbeats are not
  // delivered to us. Notifications of all channels come in commit order.
  [[nodiscard]] const std::string& channel() const { return channel_; }
  [[nodiscard]] NoticeQueue& notices() { return notices_; }
  [[nodiscard]] const NoticeQueue& notices() const { return notices_; }

  // True once: it has connected. Throws PgError.
  [[nodiscard]] bool advance();
  void listen(std::function<void()> done);
  // Has the heartbeat's question planned, for all of the connection's life.
  void prepare_heartbeat(std::function<void()> done);
  // Asks it. Nothing else may be under way.
  void ask(std::function<void(const PgRows&)> answer, std::function<void()> done);
  // Moves notifications from the socket into notices(): PostgreSQL holds its queue for a session
  // that does not read. On our channel, those that `awaited` knows.
  void drain(const std::function<bool(std::string_view)>& awaited);
  void count_malformed();

 private:
  void hear(const PgNotification& notification,
            const std::function<bool(std::string_view)>& awaited);
  void prepare(std::function<void()> done);

  FollowedDatabase& database_;
  PgConnection connection_;
  std::string channel_;
  NoticeQueue notices_;
  bool connected_ = false;
};

}  // namespace latchkey
