#include "loader/postgres/sql_text.h"

namespace latchkey {
namespace {

std::string quote(std::string_view text, char mark) {
  std::string quoted(1, mark);
  for (const char c : text) {
    if (c == mark) quoted += mark;
    quoted += c;
  }
  return quoted + mark;
}

}  // namespace

std::string in_catalog(std::string_view sql) {
  constexpr std::string_view kOperatorCharacters = "+-*/<>=~!@#%^&|`?";
  std::string text;
  for (std::size_t i = 0; i < sql.size(); ++i) {
    const std::size_t end = sql[i] == '{' ? sql.find('}', i) : std::string_view::npos;
    const std::string_view name =
        end == std::string_view::npos ? std::string_view() : sql.substr(i + 1, end - i - 1);
    if (name.empty() || name.find_first_not_of(kOperatorCharacters) != name.npos) {
      text += sql[i];
      continue;
    }
    text.append("OPERATOR(pg_catalog.").append(name).append(")");
    i = end;
  }
  return text;
}

std::string quote_identifier(std::string_view name) { return quote(name, '"'); }

std::string quoted(const TableName& table) {
  return quote_identifier(table.schema) + "." + quote_identifier(table.table);
}

std::string quote_literal(std::string_view text) {
  std::string doubled;
  for (const char c : text) {
    if (c == '\\') doubled += c;
    doubled += c;
  }
  const bool escaped = doubled.size() != text.size();
  return (escaped ? "E" : "") + quote(doubled, '\'');
}

std::string dollar_quote(const std::string& body) {
  std::string tag = "$latchkey$";
  for (int number = 1; (body + tag).find(tag) != body.size(); ++number) {
    tag = "$latchkey" + std::to_string(number) + "$";
  }
  return tag + body + tag;
}

std::string joined(const std::vector<std::string>& items, std::string_view between) {
  std::string text;
  for (const std::string& item : items) {
    if (!text.empty()) text += between;
    text += item;
  }
  return text;
}

std::string quoted_list(const std::vector<std::string>& texts) {
  std::vector<std::string> quoted;
  quoted.reserve(texts.size());
  for (const std::string& text : texts) quoted.push_back(quote_literal(text));
  return joined(quoted, ", ");
}

}  // namespace latchkey
