// What a row says of itself, where people read it.
#pragma once

#include <string>

namespace latchkey {

// A row's text may hold control characters, which neither a terminal nor a log must obey.
[[nodiscard]] inline std::string printable(std::string text) {
  for (char& c : text) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7F) c = '?';
  }
  return text;
}

}  // namespace latchkey
