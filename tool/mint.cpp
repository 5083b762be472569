#include "tool/mint.h"

#include <openssl/rand.h>

#include <array>
#include <stdexcept>

#include "keys/key_form.h"

namespace latchkey {
namespace {

std::string random_characters() {
  std::string text;
  while (text.size() < kRandomCharacters) {
    std::array<unsigned char, 64> bytes{};
    if (RAND_bytes(bytes.data(), static_cast<int>(bytes.size())) != 1) {
      throw std::runtime_error("the system gives no randomness");
    }
    for (const unsigned char byte : bytes) {
      // 248 = 4 * 62: bytes from 248 on would make some characters more likely than others.
      if (byte < 248 && text.size() < kRandomCharacters) text += kKeyAlphabet[byte % 62];
    }
  }
  return text;
}

}  // namespace

std::string mint_key(std::string_view prefix) {
  const std::string key = std::string(prefix) + "_" + random_characters();
  return key + key_checksum(key);
}

std::string to_hex(std::string_view bytes) {
  constexpr std::string_view kDigits = "0123456789abcdef";
  std::string hex;
  for (const char c : bytes) {
    const auto byte = static_cast<unsigned char>(c);
    hex += kDigits[byte >> 4];
    hex += kDigits[byte & 15];
  }
  return hex;
}

}  // namespace latchkey
