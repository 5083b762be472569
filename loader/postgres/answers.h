// What the server answers to questions about itself, read strictly: an answer that is not as it
// should be ends the connection.
#pragma once

#include <string>
#include <string_view>

#include "loader/postgres/catalogue.h"
#include "loader/postgres/connection.h"
#include "loader/postgres/identity.h"

namespace latchkey {

// All throw PgError.
[[nodiscard]] double number_or_fail(std::string_view text);
// NULL, which stands for a position that the role may not see: 0.
[[nodiscard]] Lsn read_lsn(const PgRows& rows, int column);
[[nodiscard]] ServerIdentity read_identity(const PgRows& rows);
[[nodiscard]] SideRights read_side_rights(const PgRows& rows);

// Calls `read`; what it cannot read is an error of the answer to `question`.
template <typename Read>
void read_answer(const char* question, const Read& read) {
  try {
    read();
  } catch (const CatalogueError& error) {
    throw PgError("the server's answer to " + std::string(question) + " " + error.what());
  }
}

}  // namespace latchkey
