// Configurations as text: the smallest one, and one with given lines in its database.
#pragma once

#include <string>

#include "config/options.h"
#include "loader/postgres/connection.h"

namespace latchkey::test {

inline Options parse(const std::string& text) {
  return Options::parse(text, "latchkey.toml", read_conninfo);
}

inline const std::string kDatabase = "[[database]]\nname = \"main\"\nconninfo = \"dbname=app\"\n";
inline const std::string kSource =
    "[[source]]\nname = \"s\"\ntable = \"public.keys\"\nscheme = \"sha256\"\nid = \"id\"\n"
    "key = \"hash\"\n";
inline const std::string kMinimal = kDatabase + kSource;  // 9 lines

// The smallest configuration, with these lines from its line 3 on.
inline std::string database_with(const std::string& lines) {
  return "[[database]]\nname = \"main\"\n" + lines + "\n" + kSource;  // line 3
}

}  // namespace latchkey::test
