// libpq, tamed: one connection that never blocks, and errors that say what happened.
//
// postgres.cpp is the only file that includes libpq-fe.h. A connection belongs to one thread.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

struct pg_conn;
struct pg_result;

namespace latchkey {

// In PostgreSQL's words, on one line. Never holds the password.
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
  using PgError::PgError;
};

struct PgNotification {
  std::string channel;
  std::string payload;
};

// Rows of one finished query; views live as long as the result.
class PgRows {
 public:
  explicit PgRows(pg_result* result);
  [[nodiscard]] int rows() const;
  [[nodiscard]] std::optional<std::string_view> field(int row, int column) const;

 private:
  std::shared_ptr<pg_result> result_;
};

// Which of the servers that a conninfo may name, its address found out.
struct PgServer {
  std::string host;     // a name, an address, or the folder of a Unix socket
  std::string address;  // empty: a Unix socket
  std::string port;
};

struct PgTarget {
  std::string conninfo;  // keyword=value or URI; what it leaves open gets our defaults
  std::string password;  // empty: none
  std::optional<PgServer> server = std::nullopt;  // only this one
};

// Checks that libpq can read a conninfo; returns what is wrong with it.
[[nodiscard]] std::optional<std::string> conninfo_problem(const std::string& conninfo);
// The user that it names, if any.
[[nodiscard]] std::optional<std::string> conninfo_user(const std::string& conninfo);
// Does it hold a password (which belongs into a file)?
[[nodiscard]] bool conninfo_has_password(const std::string& conninfo);

class PgConnection {
 public:
  // Begins to connect. Resolving a host name may block; Unix sockets and addresses do not.
  explicit PgConnection(const PgTarget& target);
  ~PgConnection();
  PgConnection(const PgConnection&) = delete;
  PgConnection& operator=(const PgConnection&) = delete;

  struct Handlers {
    std::function<void(std::string_view)> copy_data;  // one CopyData message
    std::function<void(const PgRows&)> rows;
    std::function<void()> done;  // the whole query string is through; a new one may be sent
  };

  // One query at a time. Without parameters several statements may stand in `sql`; they are one
  // transaction. With parameters (text) there is one statement, and its results are binary.
  void send(const std::string& sql, Handlers handlers);
  void send(const std::string& sql, const std::vector<std::string>& parameters, Handlers handlers);

  // Does what can be done without waiting, and calls handlers. Call when poll() says so, and again
  // at once while more_to_do(). Throws PgError when the connection or the query failed; the
  // connection is then of no more use.
  void advance();
  // Bytes are at hand that advance() left for later, so that one long COPY lets others have a turn.
  [[nodiscard]] bool more_to_do() const { return more_to_do_; }
  [[nodiscard]] bool connected() const { return connected_; }
  [[nodiscard]] bool idle() const { return connected_ && !busy_; }
  [[nodiscard]] std::optional<PgNotification> next_notification();
  // Whom it is connected to. Another connection to it has no name to resolve, and so cannot block.
  [[nodiscard]] PgServer server() const;

  // For poll().
  [[nodiscard]] int socket() const;
  [[nodiscard]] short events() const;

 private:
  void advance_connecting();
  void read_results();
  bool read_copy();
  void finish_query();
  [[noreturn]] void fail() const;

  std::unique_ptr<pg_conn, void (*)(pg_conn*)> connection_;
  bool connected_ = false;
  bool busy_ = false;
  bool copying_ = false;
  bool more_to_do_ = false;
  bool wants_write_ = true;
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

 private:
  std::size_t fields_;
  Fields tuple_;
  bool header_read_ = false;
  bool ended_ = false;
};

}  // namespace latchkey
