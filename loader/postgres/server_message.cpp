#include "loader/postgres/server_message.h"

#include <algorithm>
#include <array>

#include "base/printable.h"

namespace latchkey {
namespace {

// Classes of SQLSTATE with messages of fixed words, or that name only catalogue objects (PostgreSQL
// manual, "PostgreSQL Error Codes"): connection, transaction state, integrity, rollback, resources,
// state of objects, intervention, system. Other classes quote values: "invalid input syntax for
// type integer: ...", "relation ... does not exist".
constexpr std::array<std::string_view, 8> kFixedWords = {"08", "23", "25", "40",
                                                         "53", "55", "57", "58"};

bool of_class(std::string_view sqlstate, std::string_view code) {
  return sqlstate.size() == 5 && sqlstate.starts_with(code);
}

// A context shows that a function was running, which may have raised any text under any SQLSTATE.
// But the cancellation of a statement (a time-out, a lock) also has a context, and fixed words.
bool is_the_servers_own(const ServerMessage& message) {
  return message.context.empty() || message.function == "ProcessInterrupts";
}

bool may_be_repeated(const ServerMessage& message) {
  if (message.primary.empty() || !is_the_servers_own(message)) return false;
  if (message.sqlstate == "42501") return true;  // permission denied for ...
  return std::ranges::any_of(
      kFixedWords, [&](std::string_view code) { return of_class(message.sqlstate, code); });
}

}  // namespace

std::string told(const ServerMessage& message) {
  std::string text = may_be_repeated(message)
                         ? std::string(message.primary)
                         : "PostgreSQL refused the statement, in words that may hold a row and are"
                           " not repeated here; its own log has them";
  text += " (SQLSTATE ";
  text += message.sqlstate.empty() ? "unknown" : message.sqlstate;
  // RAISE ... USING CONSTRAINT accepts any text.
  const bool constrained = of_class(message.sqlstate, "23") && is_the_servers_own(message);
  if (constrained && !message.constraint.empty())
    text.append(", constraint ").append(message.constraint);
  return printable(text + ")");
}

// libpq ends messages with a newline, and one message may have several indented lines.
std::string one_line(const char* message) {
  std::string line;
  for (const char* c = message; *c != '\0'; ++c) {
    if (*c == '\n' && c[1] != '\0') line += ';';
    const bool space = *c == '\n' || *c == '\r' || *c == '\t' || *c == ' ';
    if (!space) line += *c;
    if (space && !line.empty() && line.back() != ' ') line += ' ';
  }
  if (line.ends_with(' ')) line.pop_back();
  return printable(line);
}

}  // namespace latchkey
