#include "loader/postgres/answers.h"

#include <charconv>
#include <cstdint>
#include <optional>
#include <system_error>

namespace latchkey {
namespace {

// The whole text as a number; otherwise nullopt.
template <typename T>
std::optional<T> number_of(std::string_view text, int base) {
  T number = 0;
  const char* end = text.data() + text.size();
  const auto [rest, error] = std::from_chars(text.data(), end, number, base);
  if (text.empty() || error != std::errc() || rest != end) return std::nullopt;
  return number;
}

}  // namespace

double number_or_fail(std::string_view text) {
  double number = 0;
  const char* end = text.data() + text.size();
  const auto [rest, error] = std::from_chars(text.data(), end, number);
  // A part of the whole queue; neither NaN nor infinity, which from_chars() reads.
  if (text.empty() || error != std::errc() || rest != end || !(number >= 0 && number <= 1)) {
    throw PgError("what the server says of its notification queue is no number");
  }
  return number;
}

Lsn read_lsn(const PgRows& rows, int column) {
  const auto text = rows.field(0, column);
  if (!text) return 0;
  const auto lsn = parse_lsn(std::string(*text));
  if (!lsn) throw PgError("what the server calls its WAL position is none");
  return *lsn;
}

ServerIdentity read_identity(const PgRows& rows) {
  rows.expect_columns(6);
  ServerIdentity identity;
  if (const auto system = rows.field(0, 0)) {
    if (!number_of<std::uint64_t>(*system, 10)) {
      throw PgError("what the server calls its system identifier is no number");
    }
    identity.system = *system;
  }
  if (const auto timeline = rows.field(0, 1)) {
    const auto number = number_of<std::uint32_t>(*timeline, 16);
    if (!number) throw PgError("what the server calls its timeline is no number");
    identity.timeline = *number;
  }
  identity.position = {.inserted = read_lsn(rows, 2), .flushed = read_lsn(rows, 3)};
  identity.started = rows.field(0, 4).value_or("");
  identity.checkpoint = read_lsn(rows, 5);
  return identity;
}

SideRights read_side_rights(const PgRows& rows) {
  rows.expect_columns(kSideRights);
  const auto may = [&](int column) { return rows.value(0, column) == "t"; };
  return {.system = may(0),
          .position = may(1),
          .start = may(2),
          .queue = may(3),
          .subscriptions = may(4)};
}

}  // namespace latchkey
