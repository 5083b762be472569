// Text settings of several sections: names, choices, and advice on misspelt ones.
#pragma once

#include <set>
#include <string>
#include <utility>
#include <vector>

#include "config/toml_section.h"

namespace latchkey {

// `name` of a database or a source: at most 63 characters out of A-Z a-z 0-9 _ - .
[[nodiscard]] std::string needed_name(const Section& section, const char* example);
// True if the text may be quoted into SQL as the name of a table, column or role.
[[nodiscard]] bool is_sql_name(const std::string& name);
// Advice on a text that is not a known name; empty if there is none.
[[nodiscard]] std::string advice_on(const std::string& text, const std::set<std::string>& known);

template <typename Value>
void read_choice(const Section& section, const std::string& key,
                 const std::vector<std::pair<std::string, Value>>& choices, Value& setting) {
  const auto text = section.text(key);
  if (!text) return;
  std::set<std::string> known;
  for (const auto& [name, value] : choices) {
    known.insert(name);
    if (name == *text) {
      setting = value;
      return;
    }
  }
  section.refuse("`" + key + "` cannot be \"" + *text + "\"." + advice_on(*text, known) +
                     " Choose one of: " + listed(known) + ".",
                 section.find(key));
}

}  // namespace latchkey
