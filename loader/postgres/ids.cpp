#include "loader/postgres/ids.h"

#include <algorithm>
#include <charconv>
#include <cstdint>
#include <system_error>

#include "loader/postgres/mapping.h"
#include "loader/postgres/text_converter.h"

namespace latchkey {
namespace {

bool is_uuid(std::string_view id) {
  if (id.size() != 36) return false;
  for (std::size_t i = 0; i < id.size(); ++i) {
    const bool dash = i == 8 || i == 13 || i == 18 || i == 23;
    const bool hex = (id[i] >= '0' && id[i] <= '9') || (id[i] >= 'a' && id[i] <= 'f');
    if (dash ? id[i] != '-' : !hex) return false;
  }
  return true;
}

// True for text that numeric_out() may write (PostgreSQL manual, "Arbitrary Precision Numbers").
bool is_numeric(std::string_view id) {
  if (id == "NaN") return true;
  if (id.starts_with('-')) id.remove_prefix(1);
  if (id == "Infinity") return true;
  const auto digits = [](std::string_view text) {
    return !text.empty() && text.find_first_not_of("0123456789") == text.npos;
  };
  const std::size_t point = id.find('.');
  return digits(id.substr(0, point)) && (point == id.npos || digits(id.substr(point + 1)));
}

// True for text that byteaout() may write, with bytea_output = hex.
bool is_bytea(std::string_view id) {
  return id.size() % 2 == 0 && id.starts_with("\\x") &&
         id.find_first_not_of("0123456789abcdef", 2) == id.npos;
}

bool is_int64(std::string_view id) {
  std::int64_t value = 0;
  const auto [end, error] = std::from_chars(id.data(), id.data() + id.size(), value);
  return error == std::errc() && end == id.data() + id.size();
}

}  // namespace

std::string_view id_as_read(const SourceConfig& source, const TableFacts& facts,
                            std::string_view id) {
  if (type_of(source, facts, Role::kId) != "character") return id;
  const std::size_t last = id.find_last_not_of(' ');
  return id.substr(0, last == std::string_view::npos ? 0 : last + 1);
}

bool is_id(const SourceConfig& source, const TableFacts& facts, std::string_view id) {
  const std::string array = id_array_type(source, facts);
  if (array == kIntegerArray) return is_int64(id);
  if (array == kUuidArray) return is_uuid(id);
  if (array == kNumericArray) return is_numeric(id);
  if (array == kByteaArray) return is_bytea(id);
  return id.find('\0') == std::string_view::npos;
}

bool id_may_not_convert(const SourceConfig& source, const TableFacts& facts, std::string_view id) {
  return ids_are_text(source, facts) && facts.encoding != "UTF8" && !is_ascii(id);
}

std::string array_literal(const std::vector<std::string>& ids) {
  std::string literal = "{";
  for (const std::string& id : ids) {
    if (literal.size() > 1) literal += ',';
    literal += '"';
    for (const char c : id) {
      if (c == '"' || c == '\\') literal += '\\';
      literal += c;
    }
    literal += '"';
  }
  return literal + "}";
}

}  // namespace latchkey
