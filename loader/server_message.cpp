#include "loader/server_message.h"

#include "protocol/printable.h"

namespace latchkey {
namespace {

// A message of the server's own about a statement of ours. Class 22 quotes the value that it could
// not read; a context names the function that was running, which may have raised anything. But a
// statement that is cancelled (a time-out, a lock) has a context, too, and says why in fixed words.
bool may_be_repeated(const ServerMessage& message) {
  if (message.primary.empty()) return false;
  if (message.sqlstate.starts_with("22") || message.sqlstate.starts_with("P0")) return false;
  return message.context.empty() || message.function == "ProcessInterrupts";
}

}  // namespace

std::string told(const ServerMessage& message) {
  std::string text = may_be_repeated(message)
                         ? std::string(message.primary)
                         : "PostgreSQL refused the statement, in words that may hold a row and are"
                           " not repeated here; its own log has them";
  text += " (SQLSTATE ";
  text += message.sqlstate.empty() ? "unknown" : message.sqlstate;
  if (!message.constraint.empty()) text.append(", constraint ").append(message.constraint);
  return printable(text + ")");
}

}  // namespace latchkey
