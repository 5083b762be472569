// Facts about a `conninfo` that the configuration needs. A caller that links the database's client
// library supplies the parser, because this folder depends on no client library.
#pragma once

#include <functional>
#include <optional>
#include <string>

namespace latchkey {

struct ConninfoFacts {
  std::optional<std::string> problem;  // the library's error message, if it cannot parse the text
  std::optional<std::string> user;     // nullopt: it names no user
  bool has_password = false;
};

using ReadConninfo = std::function<ConninfoFacts(const std::string& conninfo)>;

}  // namespace latchkey
