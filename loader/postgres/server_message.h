// The parts of a PostgreSQL error that may be repeated.
//
// DETAIL, HINT and CONTEXT may hold whole rows ("Failing row contains (...)", "Key (key)=(...)"),
// and so may a primary message that quotes a value or that a user's function raised. Logs,
// `status`, `--check` and error replies show only the texts made here.
#pragma once

#include <string>
#include <string_view>

namespace latchkey {

// Fields of an ErrorResponse (PostgreSQL manual, "Error and Notice Message Fields"); empty: absent.
struct ServerMessage {
  std::string_view sqlstate;
  std::string_view primary;
  std::string_view constraint;
  std::string_view context;   // never repeated; only its presence counts
  std::string_view function;  // the function in the server's source code that reports the error
};

// One printable line: the primary message if it can contain no data of a row, the SQLSTATE, the
// constraint's name.
[[nodiscard]] std::string told(const ServerMessage& message);

// libpq's own message, which may have several lines, as one printable line.
[[nodiscard]] std::string one_line(const char* message);

}  // namespace latchkey
