// Strict parsers of the server's answers about itself: a malformed answer ends the connection.
#pragma once

#include <string>
#include <string_view>

#include "loader/postgres/catalogue.h"
#include "loader/postgres/connection.h"
#include "loader/postgres/identity.h"

namespace latchkey {

// All throw PgError.
[[nodiscard]] double number_or_fail(std::string_view text);
// Returns 0 for NULL, which means that the role may not see the position.
[[nodiscard]] Lsn read_lsn(const PgRows& rows, int column);
[[nodiscard]] ServerIdentity read_identity(const PgRows& rows);
[[nodiscard]] SideRights read_side_rights(const PgRows& rows);

// Calls `read` and turns its CatalogueError into an error of the answer to `question`.
template <typename Read>
void read_answer(const char* question, const Read& read) {
  try {
    read();
  } catch (const CatalogueError& error) {
    throw PgError("the server's answer to " + std::string(question) + " " + error.what());
  }
}

}  // namespace latchkey
