// A wrapper of libpq: one connection that never blocks, and errors with the server's reason.
//
// In the loader, only connection.cpp and conninfo.h include libpq-fe.h. A connection belongs to one
// thread.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "config/conninfo.h"

struct pg_conn;
struct pg_result;

namespace latchkey {

// One printable line: PostgreSQL's message if it can contain no data of a row (see
// server_message.h). Never contains the password.
class PgError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// No connection could be established.
class PgConnectError : public PgError {
 public:
  using PgError::PgError;
};

// The server understood and refused a query.
class PgQueryError : public PgError {
 public:
  explicit PgQueryError(const std::string& text, std::string sqlstate = "")
      : PgError(text), sqlstate_(std::move(sqlstate)) {}
  // PostgreSQL manual, "PostgreSQL Error Codes"; empty if unknown.
  [[nodiscard]] const std::string& sqlstate() const { return sqlstate_; }

 private:
  std::string sqlstate_;
};

struct PgNotification {
  std::string channel;
  std::string payload;
};

// Rows of one finished query; views live as long as the result. If a broken or hostile server
// leaves out a field, access throws a named error and never reads outside the result.
class PgRows {
 public:
  // `what` names the query in errors; it must live as long as the rows.
  PgRows(pg_result* result, std::string_view what);
  [[nodiscard]] int rows() const;
  // Throws PgError unless each row has exactly this number of fields.
  void expect_columns(std::size_t columns) const;
  // True if the server declares the fields to be of these types (pg_type.dat). Throws PgError if
  // their number differs, or they are not binary.
  [[nodiscard]] bool are_of_types(std::span<const std::uint32_t> types) const;
  // nullopt: NULL. Throws PgError if there is no such field.
  [[nodiscard]] std::optional<std::string_view> field(int row, int column) const;
  // Throws PgError if there is no such field, or if it is NULL.
  [[nodiscard]] std::string_view value(int row, int column) const;

 private:
  [[noreturn]] void fail(const std::string& how) const;

  std::shared_ptr<pg_result> result_;
  std::string_view what_;
};

struct PgTarget {
  std::string conninfo;  // keyword=value or URI; missing settings get our defaults
  // Reads the password. Called at each attempt to connect, so that a new password needs no restart.
  // Null: no password. Its exceptions fail the attempt.
  std::function<std::string()> password = {};
};

// One server of a conninfo; an empty field means libpq's default.
struct PgHost {
  std::string host;      // a name, an address, or the folder of a Unix socket
  std::string hostaddr;  // empty: resolved from the name, or a Unix socket
  std::string port;

  // For messages, such as "db2.example:5433", "db2.example (10.0.0.2):5433".
  [[nodiscard]] std::string display() const;
};
// Returns at least one host. libpq would try them one after another itself, but without a time
// limit: its connect_timeout does not apply to non-blocking connections (libpq, "PQconnectPoll").
[[nodiscard]] std::vector<PgHost> hosts_of(const std::string& conninfo);
// Returns one entry for each address of a host name, in the resolver's order; the host itself if
// there is nothing to resolve. libpq would try all addresses within one attempt, and a silent
// address would use up the time of all. Each entry keeps the name, because certificates are checked
// against it. May block as long as the resolver does. Throws PgConnectError.
[[nodiscard]] std::vector<PgHost> addresses_of(const PgHost& host);
// The conninfo's `connect_timeout`, or our default; at least 2 seconds, as in libpq.
[[nodiscard]] std::int64_t connect_timeout_ns(const std::string& conninfo);

[[nodiscard]] ConninfoFacts read_conninfo(const std::string& conninfo);

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

// Splits the CopyData messages of COPY ... (FORMAT binary) into tuples (PostgreSQL manual, COPY,
// "Binary Format").
class CopyReader {
 public:
  using Fields = std::vector<std::optional<std::string_view>>;
  explicit CopyReader(std::size_t fields) : fields_(fields) {}

  // Calls `tuple` for each tuple in the message; throws PgError if the message is malformed.
  void read(std::string_view message, const std::function<void(const Fields&)>& tuple);
  // True if the trailer has arrived. Without it tuples may be missing.
  [[nodiscard]] bool ended() const { return ended_; }

 private:
  std::size_t fields_;
  Fields tuple_;
  bool header_read_ = false;
  bool ended_ = false;
};

}  // namespace latchkey
