// What a configuration needs to know of a `conninfo`. Whoever has a client library of the database
// at hand reads it: this folder knows none.
#pragma once

#include <functional>
#include <optional>
#include <string>

namespace latchkey {

struct ConninfoFacts {
  std::optional<std::string> problem;  // why the library cannot read it, in its words
  std::optional<std::string> user;     // nothing: it names none
  bool has_password = false;
};

using ReadConninfo = std::function<ConninfoFacts(const std::string& conninfo)>;

}  // namespace latchkey
