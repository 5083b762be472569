#include "keys/key_form.h"

#include <algorithm>
#include <boost/crc.hpp>
#include <cstdint>

namespace latchkey {

bool is_key_prefix(std::string_view prefix) {
  return !prefix.empty() && prefix.size() <= kKeyPrefixMax &&
         std::ranges::all_of(prefix, [](char c) {
           return c == '_' || kKeyAlphabet.find(c) != std::string_view::npos;
         });
}

std::string key_checksum(std::string_view text) {
  boost::crc_32_type crc;
  crc.process_bytes(text.data(), text.size());
  std::uint32_t value = crc.checksum();
  std::string characters(kChecksumCharacters, '0');
  for (auto at = characters.rbegin(); at != characters.rend(); ++at, value /= 62) {
    *at = kKeyAlphabet[value % 62];
  }
  return characters;
}

bool has_minted_form(std::string_view key) {
  constexpr std::size_t kTail = kRandomCharacters + kChecksumCharacters;
  if (key.size() < kTail + 2 || key[key.size() - kTail - 1] != '_') return false;
  return key.substr(key.size() - kTail).find_first_not_of(kKeyAlphabet) == std::string_view::npos &&
         is_key_prefix(key.substr(0, key.size() - kTail - 1));
}

bool is_minted_key(std::string_view key) {
  if (!has_minted_form(key)) return false;
  const std::string_view signed_part = key.substr(0, key.size() - kChecksumCharacters);
  return key_checksum(signed_part) == key.substr(signed_part.size());
}

}  // namespace latchkey
