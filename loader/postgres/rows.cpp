#include "loader/postgres/rows.h"

#include <libpq-fe.h>

#include <algorithm>
#include <string>

namespace latchkey {

PgRows::PgRows(pg_result* result, std::string_view what) : result_(result, PQclear), what_(what) {}

int PgRows::rows() const { return PQntuples(result_.get()); }

void PgRows::fail(const std::string& how) const {
  throw PgError("the server's answer to " + std::string(what_) + " " + how);
}

void PgRows::expect_columns(std::size_t columns) const {
  const int count = PQnfields(result_.get());
  if (count < 0 || static_cast<std::size_t>(count) != columns) {
    fail("has " + std::to_string(count) + " columns instead of " + std::to_string(columns));
  }
}

bool PgRows::are_of_types(std::span<const std::uint32_t> types) const {
  expect_columns(types.size());
  for (std::size_t i = 0; i < types.size(); ++i) {
    const int column = static_cast<int>(i);
    if (PQfformat(result_.get(), column) != 1) fail("is not in the binary format");
    if (PQftype(result_.get(), column) != types[i]) return false;
  }
  return true;
}

std::optional<std::string_view> PgRows::field(int row, int column) const {
  if (row < 0 || row >= rows()) fail("has no row " + std::to_string(row));
  if (column < 0 || column >= PQnfields(result_.get())) {
    fail("has no column " + std::to_string(column));
  }
  if (PQgetisnull(result_.get(), row, column) != 0) return std::nullopt;
  return std::string_view(PQgetvalue(result_.get(), row, column),
                          static_cast<std::size_t>(PQgetlength(result_.get(), row, column)));
}

std::string_view PgRows::value(int row, int column) const {
  const auto found = field(row, column);
  if (!found) fail("is NULL in column " + std::to_string(column));
  return *found;
}

}  // namespace latchkey
