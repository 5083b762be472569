// Errors of a database, with texts that may be shown.
#pragma once

#include <stdexcept>
#include <string>
#include <utility>

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

}  // namespace latchkey
