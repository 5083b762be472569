// The rows of one finished query, read strictly.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "loader/postgres/errors.h"

struct pg_result;

namespace latchkey {

// Rows of one finished query; views live as long as the result. If a broken or hostile server
// leaves out a field, access throws a named error and never reads outside the result.
class PgRows {
 public:
  // `what` names the query in errors; it must live as long as the rows.
  PgRows(pg_result* result, std::string_view what);
  [[nodiscard]] int rows() const;
  // Throws PgError unless each row has exactly this number of fields.
  void expect_columns(std::size_t columns) const;
  // True if the server declares the fields to be of these types (pg_type.dat). Throws PgError if
  // their number differs, or they are not binary.
  [[nodiscard]] bool are_of_types(std::span<const std::uint32_t> types) const;
  // nullopt: NULL. Throws PgError if there is no such field.
  [[nodiscard]] std::optional<std::string_view> field(int row, int column) const;
  // Throws PgError if there is no such field, or if it is NULL.
  [[nodiscard]] std::string_view value(int row, int column) const;

 private:
  [[noreturn]] void fail(const std::string& how) const;

  std::shared_ptr<pg_result> result_;
  std::string_view what_;
};

}  // namespace latchkey
