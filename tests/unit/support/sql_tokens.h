// Finds the names of a statement that depend on a search_path. It parses only as much of SQL's
// syntax (PostgreSQL manual, "Lexical Structure") as our statements need.
#pragma once

#include <algorithm>
#include <cctype>
#include <string>
#include <string_view>
#include <unordered_set>
#include <vector>

namespace latchkey::test {

// Words that may stand before a parenthesis without being a function: SQL's own syntax, and names
// defined in the same statement.
inline const std::unordered_set<std::string> kSyntax = {
    "all",       "and",          "any",   "array",  "as",     "base",     "behind",   "by",
    "check",     "coalesce",     "code",  "copy",   "cross",  "domain",   "else",     "end",
    "exception", "exists",       "for",   "from",   "h",      "if",       "join",     "kind",
    "lateral",   "materialized", "named", "not",    "of",     "on",       "operator", "or",
    "over",      "part",         "row",   "select", "stdout", "stranger", "then",     "to",
    "union",     "update",       "used",  "using",  "values", "when",     "where",    "with"};
// Forms that call an operator without naming it.
inline const std::unordered_set<std::string> kHidden = {"in",      "between", "like",    "ilike",
                                                        "similar", "nullif",  "natural", "greatest",
                                                        "least",   "overlaps"};

struct Token {
  std::string text;
  char kind;  // w(ord), o(perator), s(ymbol)
  bool qualified = false;
};

// Omits literals, quoted names and comments; the text between dollar quotes is SQL.
inline std::vector<Token> tokens(const std::string& sql) {
  std::vector<Token> list;
  static constexpr std::string_view kOperators = "+-*/<>=~!@#%^&|`?";
  for (std::size_t i = 0; i < sql.size();) {
    const char c = sql[i];
    if (sql.compare(i, 2, "--") == 0) {
      i = std::min(sql.find('\n', i), sql.size());
    } else if (c == '"' || c == '\'') {
      const bool escapes = c == '\'' && !list.empty() && list.back().text == "e";
      for (++i; i < sql.size(); ++i) {
        if (escapes && sql[i] == '\\') {
          ++i;
        } else if (sql[i] == c && sql.compare(i, 2, std::string(2, c)) == 0) {
          ++i;
        } else if (sql[i] == c) {
          break;
        }
      }
      ++i;
      list.push_back({c == '"' ? "\"" : "'", c == '"' ? 'w' : 's'});
    } else if (std::isalpha(static_cast<unsigned char>(c)) != 0 || c == '_' || c == '$') {
      std::string word;
      for (; i < sql.size() && (std::isalnum(static_cast<unsigned char>(sql[i])) != 0 ||
                                sql[i] == '_' || sql[i] == '$');
           ++i) {
        word += static_cast<char>(std::tolower(static_cast<unsigned char>(sql[i])));
      }
      list.push_back({word, 'w'});
    } else if (kOperators.find(c) != std::string::npos) {
      std::string name;
      for (; i < sql.size() && kOperators.find(sql[i]) != std::string::npos; ++i) name += sql[i];
      list.push_back({name, 'o'});
    } else {
      if (c == ':' && sql.compare(i, 2, "::") == 0) {
        list.push_back({"::", 's'});
        i += 2;
        continue;
      }
      if (std::isspace(static_cast<unsigned char>(c)) == 0)
        list.push_back({std::string(1, c), 's'});
      ++i;
    }
  }
  for (std::size_t i = 2; i < list.size(); ++i) {
    list[i].qualified = list[i - 1].text == "." && list[i - 2].text == "pg_catalog";
  }
  return list;
}

// The unqualified names, with their surroundings.
inline std::vector<std::string> unnamed(const std::string& sql) {
  std::vector<std::string> found;
  const std::vector<Token> list = tokens(sql);
  const std::string none;
  const auto text = [&](std::size_t i) -> const std::string& {
    return i < list.size() ? list[i].text : none;
  };
  const auto report = [&](std::size_t i, const char* what) {
    std::string around = what;
    for (std::size_t j = i < 6 ? 0 : i - 6; j < std::min(i + 5, list.size()); ++j) {
      around += " " + list[j].text;
    }
    found.push_back(around);
  };
  for (std::size_t i = 0; i < list.size(); ++i) {
    const Token& token = list[i];
    if (token.kind == 'o' && !token.qualified) {
      const bool all_rows = token.text == "*" && text(i - 1) == "(" && text(i + 1) == ")";
      const bool sign = token.text == "-" && std::isdigit(text(i + 1)[0]) != 0;
      const bool assignment = token.text == "=" && (text(i - 1) == ":" || i == 0);
      // SET search_path = ..., SET column = ...: not an operator.
      const bool setting = token.text == "=" && (text(i - 2) == "set" || text(i - 2) == "local" ||
                                                 text(i - 2) == "hint" || text(i - 1) == "hint");
      if (!all_rows && !sign && !assignment && !setting) report(i, "operator");
    }
    if (token.text == "::" && text(i + 1) != "pg_catalog") report(i, "type");
    if (token.kind != 'w') continue;
    if (kHidden.contains(token.text) && text(i - 1) != "for" && text(i - 1) != "." &&
        text(i - 2) != "for") {
      report(i, "hidden operator");
    }
    if (token.text == "distinct" && text(i + 1) == "from") report(i, "hidden operator");
    const bool call =
        text(i + 1) == "(" && text(i - 1) != "." && text(i - 1) != "on" && text(i - 1) != "as";
    if (call && !kSyntax.contains(token.text) && token.text != "\"") report(i, "function");
    if ((token.text == "from" || token.text == "join") && i + 1 < list.size()) {
      static const std::unordered_set<std::string> ours = {
          "new_rows", "old_rows", "h",    "u",       "part",     "used",  "older", "free",
          "base",     "domain",   "code", "written", "stranger", "named", "kind",  "behind"};
      const std::string& next = list[i + 1].text;
      const bool named = next == "pg_catalog" || next == "\"" || next == "(" || next == "rows" ||
                         next == "lateral" || ours.contains(next);
      if (!named) report(i, "relation");
    }
  }
  return found;
}

}  // namespace latchkey::test
