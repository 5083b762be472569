// What may be repeated of an error that PostgreSQL reports.
//
// DETAIL, HINT and CONTEXT may hold whole rows ("Failing row contains (...)", "Key (key)=(...)"),
// and so may a primary message that quotes a value or that a function of somebody's raised. Logs,
// `status`, `--check` and error replies show what is made here, nothing else.
#pragma once

#include <string>
#include <string_view>

namespace latchkey {

// Fields of an ErrorResponse (PostgreSQL manual, "Error and Notice Message Fields"); empty: absent.
struct ServerMessage {
  std::string_view sqlstate;
  std::string_view primary;
  std::string_view constraint;
  std::string_view context;   // not told; whether there is one, is
  std::string_view function;  // of the server's source code, that reports the error
};

// One printable line: the primary message where it can hold nothing out of a row, the SQLSTATE, the
// constraint's name.
[[nodiscard]] std::string told(const ServerMessage& message);

// libpq's own message, which may have several lines, on one printable line.
[[nodiscard]] std::string one_line(const char* message);

}  // namespace latchkey
