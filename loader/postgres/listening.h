// The listening connection: it receives changes and our own nonces, and runs the heartbeat's query.
// It touches no table of a source, so no code of a table's owner runs in its session.
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
  // The channel for nonces. It is this connection's own, so that other daemons' heartbeats are not
  // delivered to us. Notifications of all channels arrive in commit order.
  [[nodiscard]] const std::string& channel() const { return channel_; }
  [[nodiscard]] NoticeQueue& notices() { return notices_; }
  [[nodiscard]] const NoticeQueue& notices() const { return notices_; }

  // Returns true once, when it has connected. Throws PgError.
  [[nodiscard]] bool advance();
  void listen(std::function<void()> done);
  // Prepares the heartbeat's query for the life of the connection.
  void prepare_heartbeat(std::function<void()> done);
  // Runs the heartbeat's query. The connection must be idle.
  void ask(std::function<void(const PgRows&)> answer, std::function<void()> done);
  // Moves notifications from the socket into notices(): PostgreSQL keeps its queue for a session
  // that does not read. On our own channel it keeps only payloads that `awaited` accepts.
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
