#include "client/mint.h"

#include <openssl/rand.h>

#include <algorithm>
#include <array>
#include <boost/crc.hpp>
#include <cstdint>
#include <stdexcept>

namespace latchkey {
namespace {

constexpr std::string_view kBase62 =
    "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
constexpr std::size_t kRandomCharacters = 22;   // 62^22 > 2^130
constexpr std::size_t kChecksumCharacters = 6;  // 62^6 > 2^32

std::string random_characters() {
  std::string text;
  while (text.size() < kRandomCharacters) {
    std::array<unsigned char, 64> bytes{};
    if (RAND_bytes(bytes.data(), static_cast<int>(bytes.size())) != 1) {
      throw std::runtime_error("the system gives no randomness");
    }
    for (const unsigned char byte : bytes) {
      // 248 = 4 * 62: the rest would make some characters likelier than others.
      if (byte < 248 && text.size() < kRandomCharacters) text += kBase62[byte % 62];
    }
  }
  return text;
}

std::string checksum(std::string_view text) {
  boost::crc_32_type crc;
  crc.process_bytes(text.data(), text.size());
  std::uint32_t value = crc.checksum();
  std::string characters(kChecksumCharacters, '0');
  for (auto at = characters.rbegin(); at != characters.rend(); ++at, value /= 62) {
    *at = kBase62[value % 62];
  }
  return characters;
}

}  // namespace

bool is_key_prefix(std::string_view prefix) {
  return !prefix.empty() && prefix.size() <= 32 && std::ranges::all_of(prefix, [](char c) {
    return c == '_' || kBase62.find(c) != std::string_view::npos;
  });
}

std::string mint_key(std::string_view prefix) {
  const std::string key = std::string(prefix) + "_" + random_characters();
  return key + checksum(key);
}

bool is_minted_key(std::string_view key) {
  constexpr std::size_t kTail = kRandomCharacters + kChecksumCharacters;
  if (key.size() < kTail + 2 || key[key.size() - kTail - 1] != '_') return false;
  const std::string_view signed_part = key.substr(0, key.size() - kChecksumCharacters);
  const bool base62 = key.substr(key.size() - kTail).find_first_not_of(kBase62) == key.npos;
  return base62 && is_key_prefix(key.substr(0, key.size() - kTail - 1)) &&
         checksum(signed_part) == key.substr(signed_part.size());
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
