// The connection that reads: who the server is, what the catalogue says, whole tables, changed
// rows, one question after the other (refresh.h, 2). It also sends nonces while it has nothing else
// to do.
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
  // Of a load or the reading of rows; the handshake has its own.
  [[nodiscard]] std::int64_t deadline_ns() const { return deadline_ns_; }
  // What it is doing, for messages.
  [[nodiscard]] const std::string& step() const { return step_; }

  // Does all that can be done without waiting. True once: it has connected. Throws PgError.
  [[nodiscard]] bool advance(std::int64_t now_ns);

  // ---- steps of the handshake (handshake.h)

  // Asks the server who it is, and at the start looks up every table; then `done`. Throws PgError
  // if a table cannot be served.
  void identify(std::function<void()> done);
  // How far LISTEN of the backend is. `answer` gets: is it at work, how full is the queue (0 to 1).
  void ask_progress(int backend_pid, std::function<void(bool, double)> answer);
  // Sends the nonce of the meeting. `queue_full`: a full notification queue refused it.
  void meet(const std::string& channel, const std::string& nonce, std::function<void()> queue_full);

  // ---- tasks of the policy (refresh.h), which is told of their ends

  void load(std::size_t index, LoadReason reason);
  void reread(std::size_t index, std::vector<std::string> ids);
  // Sends a heartbeat's nonce. A task that becomes due meanwhile begins after it.
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
  void suspend(std::size_t index, std::vector<LintFinding> why);
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
