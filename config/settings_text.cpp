#include "config/settings_text.h"

#include <algorithm>
#include <cctype>

#include "base/printable.h"
#include "latchkey/wire.h"

namespace latchkey {
namespace {

bool is_name(const std::string& name) {
  return name.size() <= LATCHKEY_SOURCE_BYTES_MAX && std::ranges::all_of(name, [](char c) {
           return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '_' || c == '-' ||
                  c == '.';
         });
}

}  // namespace

std::string needed_name(const Section& section, const char* example) {
  std::string name = section.needed_text("name", example);
  if (!is_name(name)) {
    section.refuse("`name` has at most 63 characters out of A-Z a-z 0-9 _ - .",
                   section.find("name"));
  }
  return name;
}

// Names are quoted into SQL; "$latchkey$" would end the quotation of a function's body. Printed SQL
// shows each name unchanged, so a reader would mistake a name with invisible characters for another
// name.
bool is_sql_name(const std::string& name) {
  return name.size() <= 63 && name.find("$latchkey$") == std::string::npos &&
         printable(name) == name;
}

// Advice on common wrong values of a setting.
std::string advice_on(const std::string& text, const std::set<std::string>& known) {
  const auto plainly = [](std::string_view name) {
    std::string letters;
    for (const char c : name) {
      if (c != '-' && c != '_' && c != ' ') letters += static_cast<char>(std::tolower(c));
    }
    return letters;
  };
  const std::string wanted = plainly(text);
  for (const char* slow : {"bcrypt", "scrypt", "argon", "pbkdf"}) {
    if (!wanted.starts_with(slow)) continue;
    return " Slow hashes are for passwords, and cannot be looked up: each presented key would have "
           "to"
           " be tried on each row. Keys of 128 random bits need no more than SHA-256.";
  }
  if (wanted == "base64url") return " `base64` reads that alphabet, too.";
  if (wanted == "bytea" || wanted == "binary") return " A digest as bytea is `raw`.";
  if (wanted == "hmac") return " Did you mean `hmac-sha256`?";
  for (const std::string& name : known) {
    if (plainly(name) == wanted) return " Did you mean `" + name + "`?";
  }
  return "";
}

}  // namespace latchkey
