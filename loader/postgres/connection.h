// A wrapper of libpq: one connection that never blocks, and errors with the server's reason.
//
// In the loader, only connection.cpp and conninfo.h include libpq-fe.h. A connection belongs to one
// thread.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "loader/postgres/copy_reader.h"
#include "loader/postgres/errors.h"
#include "loader/postgres/hosts.h"
#include "loader/postgres/rows.h"

struct pg_conn;

namespace latchkey {

struct PgNotification {
  std::string channel;
  std::string payload;
};

class PgConnection {
 public:
  // Begins to connect. Throws PgConnectError. A host name without an address may block in the
  // resolver (see addresses_of()).
  PgConnection(const PgTarget& target, const PgHost& host);
  ~PgConnection();
  PgConnection(const PgConnection&) = delete;
  PgConnection& operator=(const PgConnection&) = delete;

  static constexpr std::size_t kCopyMessages = 64;
  struct Handlers {
    // Receives CopyData messages: all that have arrived, but at most kCopyMessages.
    std::function<void(std::span<const std::string_view>)> copy_data;
    // Called once: a query with this handler has one result with rows, a query with `copy_data` one
    // COPY. An answer of another kind fails the connection.
    std::function<void(const PgRows&)> rows;
    std::function<void()> done;  // the whole query string is done; a new one may be sent
    // Called instead of `done` if the server refused the query: the connection is still usable.
    // Without this handler advance() throws.
    std::function<void(const PgQueryError&)> refused = {};
    std::string_view what = "a query";  // names the query in errors; a literal
  };

  // True if the server has sent data since the last call.
  [[nodiscard]] bool take_heard() { return std::exchange(heard_, false); }

  // One query at a time. Without parameters, `sql` may contain several statements; they are one
  // transaction. With parameters (text), `sql` is one statement, and its results are binary.
  void send(const std::string& sql, Handlers handlers);
  void send(const std::string& sql, const std::vector<std::string>& parameters, Handlers handlers);
  // The same in two steps, for a statement that runs often: PostgreSQL parses it once, and stops
  // planning it after some executions (PostgreSQL manual, PREPARE). `name` is unique in the
  // session.
  void prepare(const std::string& name, const std::string& sql, Handlers handlers);
  void execute(const std::string& name, const std::vector<std::string>& parameters,
               Handlers handlers);

  // Does all work that needs no waiting, and calls handlers. Call it when poll() reports the
  // socket, and again at once while more_to_do(). Throws PgError if the connection failed; it is
  // then unusable.
  void advance();
  // True if advance() left received data for the next call, so that a long COPY does not delay
  // other work.
  [[nodiscard]] bool more_to_do() const { return more_to_do_; }
  // True if advance() has just received part of a COPY: more will arrive soon.
  [[nodiscard]] bool streaming() const { return streaming_; }
  [[nodiscard]] bool connected() const { return connected_; }
  [[nodiscard]] bool idle() const { return connected_ && !busy_; }
  [[nodiscard]] std::optional<PgNotification> next_notification();
  // The connected server. Another connection to it needs no name resolution, and so cannot block.
  [[nodiscard]] PgHost server() const;
  // The database's encoding as the server reports it at connect; empty if not reported.
  [[nodiscard]] std::string server_encoding() const;
  // The PID of the server process, as the server reports it. A pooler invents one.
  [[nodiscard]] int backend_pid() const;

  // For poll().
  [[nodiscard]] int socket() const;
  [[nodiscard]] short events() const;

 private:
  void sent(int sent, Handlers handlers);
  void advance_connecting();
  void read_results();
  bool read_copy();
  void take_result();
  void finish_query();
  [[noreturn]] void unexpected(const char* how) const;
  [[noreturn]] void fail() const;

  std::unique_ptr<pg_conn, void (*)(pg_conn*)> connection_;
  bool connected_ = false;
  bool busy_ = false;
  bool copying_ = false;
  bool answered_ = false;  // the current query has delivered its rows or its COPY
  bool more_to_do_ = false;
  bool streaming_ = false;
  bool wants_write_ = true;
  bool heard_ = false;
  std::optional<PgQueryError> refusal_;  // of the current query
  Handlers handlers_;
};

}  // namespace latchkey
