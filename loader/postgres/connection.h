// libpq, tamed: one connection that never blocks, and errors that say what happened.
//
// postgres.cpp is the only file that includes libpq-fe.h. A connection belongs to one thread.
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

// On one printable line: PostgreSQL's words where they can hold nothing out of a row (see
// server_message.h). Never holds the password.
class PgError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// There is no connection.
class PgConnectError : public PgError {
 public:
  using PgError::PgError;
};

// The server understood and refused a query.
class PgQueryError : public PgError {
 public:
  explicit PgQueryError(const std::string& text, std::string sqlstate = "")
      : PgError(text), sqlstate_(std::move(sqlstate)) {}
  // PostgreSQL manual, "PostgreSQL Error Codes"; empty: not known.
  [[nodiscard]] const std::string& sqlstate() const { return sqlstate_; }

 private:
  std::string sqlstate_;
};

struct PgNotification {
  std::string channel;
  std::string payload;
};

// Rows of one finished query; views live as long as the result. What a broken or hostile server
// leaves out is an error with a name, never a read of what is not there.
class PgRows {
 public:
  // `what` was asked for; it lives as long as the rows, and stands in errors.
  PgRows(pg_result* result, std::string_view what);
  [[nodiscard]] int rows() const;
  // Throws PgError unless each row has just so many fields.
  void expect_columns(std::size_t columns) const;
  // Are the fields binary, and of these types (pg_type.dat), as the server declares them? Throws
  // PgError if there are not as many.
  [[nodiscard]] bool are_of_types(std::span<const std::uint32_t> types) const;
  // Nothing: NULL. Throws PgError if there is no such field.
  [[nodiscard]] std::optional<std::string_view> field(int row, int column) const;
  // Throws PgError if there is no such field, or NULL in it.
  [[nodiscard]] std::string_view value(int row, int column) const;

 private:
  [[noreturn]] void fail(const std::string& how) const;

  std::shared_ptr<pg_result> result_;
  std::string_view what_;
};

struct PgTarget {
  std::string conninfo;  // keyword=value or URI; what it leaves open gets our defaults
  // Reads the password. Asked at each attempt to connect: somebody may have replaced it, and a new
  // password must need no restart. Null: none. What it throws fails the attempt.
  std::function<std::string()> password = {};
};

// One of the servers that a conninfo names; empty: what libpq takes by default.
struct PgHost {
  std::string host;      // a name, an address, or the folder of a Unix socket
  std::string hostaddr;  // empty: found out from the name, or a Unix socket
  std::string port;

  // For messages, such as "db2.example:5433", "db2.example (10.0.0.2):5433".
  [[nodiscard]] std::string display() const;
};
// At least one. libpq would walk through them itself, but only as long as nobody keeps it waiting:
// its connect_timeout does not apply to connections that do not block (libpq, "PQconnectPoll").
[[nodiscard]] std::vector<PgHost> hosts_of(const std::string& conninfo);
// One entry for each address of a host name, in the order of the resolver; the host itself where
// there is nothing to resolve. libpq would try the addresses within one attempt, and one that never
// answers would use up the time of all. The name stays: certificates are checked against it. May
// block as long as the resolver does. Throws PgConnectError.
[[nodiscard]] std::vector<PgHost> addresses_of(const PgHost& host);
// `connect_timeout` of the conninfo, or our default; at least 2 seconds, as in libpq.
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
    // Some CopyData messages, all that are at hand or kCopyMessages of them.
    std::function<void(std::span<const std::string_view>)> copy_data;
    // Called once: a query with this handler has one result with rows, one with the handler above
    // one COPY. An answer of another kind fails the connection.
    std::function<void(const PgRows&)> rows;
    std::function<void()> done;  // the whole query string is through; a new one may be sent
    // Instead of `done`, if the server refused the query: the connection is still good. Without it
    // advance() throws.
    std::function<void(const PgQueryError&)> refused = {};
    std::string_view what = "a query";  // is asked, for errors; a literal
  };

  // Has the server sent anything since this was last asked?
  [[nodiscard]] bool take_heard() { return std::exchange(heard_, false); }

  // One query at a time. Without parameters several statements may stand in `sql`; they are one
  // transaction. With parameters (text) there is one statement, and its results are binary.
  void send(const std::string& sql, Handlers handlers);
  void send(const std::string& sql, const std::vector<std::string>& parameters, Handlers handlers);
  // The same in two steps, for a statement that is asked again and again: it is parsed once, and
  // after some executions no longer planned (PostgreSQL manual, PREPARE). `name` is the session's.
  void prepare(const std::string& name, const std::string& sql, Handlers handlers);
  void execute(const std::string& name, const std::vector<std::string>& parameters,
               Handlers handlers);

  // Does what can be done without waiting, and calls handlers. Call when poll() says so, and again
  // at once while more_to_do(). Throws PgError when the connection failed; it is then of no more
  // use.
  void advance();
  // Bytes are at hand that advance() left for later, so that one long COPY lets others have a turn.
  [[nodiscard]] bool more_to_do() const { return more_to_do_; }
  // A COPY is on its way, and advance() has just got some of it: more will be there soon.
  [[nodiscard]] bool streaming() const { return streaming_; }
  [[nodiscard]] bool connected() const { return connected_; }
  [[nodiscard]] bool idle() const { return connected_ && !busy_; }
  [[nodiscard]] std::optional<PgNotification> next_notification();
  // Whom it is connected to. Another connection to it has no name to resolve, and so cannot block.
  [[nodiscard]] PgHost server() const;
  // How the database is encoded, as the server says when it connects; empty: not said.
  [[nodiscard]] std::string server_encoding() const;
  // The process that serves it, as the server calls it. A pooler makes one up.
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
  bool answered_ = false;  // by the rows, or the COPY, that the query under way is for
  bool more_to_do_ = false;
  bool streaming_ = false;
  bool wants_write_ = true;
  bool heard_ = false;
  std::optional<PgQueryError> refusal_;  // of the query under way
  Handlers handlers_;
};

// Takes the CopyData messages of COPY ... (FORMAT binary) apart into tuples
// (PostgreSQL manual, COPY, "Binary Format").
class CopyReader {
 public:
  using Fields = std::vector<std::optional<std::string_view>>;
  explicit CopyReader(std::size_t fields) : fields_(fields) {}

  // Calls `tuple` for each tuple in the message; throws PgError if it is none.
  void read(std::string_view message, const std::function<void(const Fields&)>& tuple);
  // Its trailer has come. Without it tuples may be missing.
  [[nodiscard]] bool ended() const { return ended_; }

 private:
  std::size_t fields_;
  Fields tuple_;
  bool header_read_ = false;
  bool ended_ = false;
};

}  // namespace latchkey
