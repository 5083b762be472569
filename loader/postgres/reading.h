// The reading connection: it reads the server's identity, the catalogue, whole tables and changed
// rows, one query after another (refresh.h, 2). It also sends nonces while it is idle.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "loader/finding.h"
#include "loader/postgres/connection.h"
#include "loader/postgres/followed_database.h"
#include "loader/postgres/session_setup.h"

namespace latchkey {

class Reading {
 public:
  // Begins to connect. Throws PgError.
  Reading(FollowedDatabase& database, const PgHost& server);

  [[nodiscard]] const PgConnection& connection() const { return connection_; }
  [[nodiscard]] bool idle() const { return connection_.idle(); }
  // Deadline of a load or a re-read; the handshake has its own.
  [[nodiscard]] std::int64_t deadline_ns() const { return deadline_ns_; }
  // The current activity, for messages.
  [[nodiscard]] const std::string& step() const { return step_; }

  // Does all work that needs no waiting. Returns true once, when it has connected. Throws PgError.
  [[nodiscard]] bool advance(std::int64_t now_ns);

  // ---- steps of the handshake (handshake.h)

  // Reads the server's identity, and at the start looks up every table; then calls `done`. Throws
  // PgError if a table cannot be served.
  void identify(std::function<void()> done);
  // Asks for the progress of the backend's LISTEN. `answer` gets: whether it is at work, the usage
  // of the notification queue (0 to 1).
  void ask_progress(int backend_pid, std::function<void(bool, double)> answer);
  // Sends the meeting's nonce. Calls `queue_full` if a full notification queue refuses it.
  void meet(const std::string& channel, const std::string& nonce, std::function<void()> queue_full);

  // ---- tasks of the policy (refresh.h); their ends are reported to it

  void load(std::size_t index, LoadReason reason);
  void reread(std::size_t index, std::vector<std::string> ids);
  // Sends a heartbeat's nonce. A task that is due meanwhile begins afterwards.
  void echo(const std::string& channel, const std::string& nonce,
            std::function<void(const PgQueryError&)> refused);

 private:
  using Refused = std::function<void(const PgQueryError&)>;

  void inspect(std::size_t index, std::function<void()> done);
  void check_problems() const;
  void look_up_table(std::size_t index, std::function<void()> done);
  void looked_up(std::size_t index);
  void copy(std::size_t index);
  void load_done(std::size_t index);
  void hold_uses(const FollowedSource& source, bool unit_is_wrong);
  void read_rows(std::size_t index, const std::vector<std::string>& ids);
  void prepare_rows(std::size_t index, const std::string& sql, const std::vector<std::string>& ids);
  void read_prepared(std::size_t index, const std::vector<std::string>& ids);
  void rows_read(FollowedSource& source, std::size_t index);
  void serve_owner(const FollowedSource& source, const std::function<void()>& done);
  void forget_prepared();
  void send_each(const std::vector<std::string>& statements, std::size_t from,
                 const std::function<void()>& done);
  void suspend(std::size_t index, std::vector<Finding> why);
  void overtaken(std::size_t index);
  [[nodiscard]] Refused refusal_handler(std::size_t index);
  void echo_sent();

  FollowedDatabase& database_;
  PgConnection connection_;
  SessionOwner session_owner_;
  bool connected_ = false;
  std::string step_;
  std::int64_t deadline_ns_ = kNoDeadline;
  bool echoing_ = false;
  std::function<void()> after_echo_;
};

}  // namespace latchkey
