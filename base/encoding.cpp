#include "base/encoding.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>

#include <algorithm>

namespace latchkey {

std::optional<std::string> decode_hex(std::string_view text) {
  const auto nibble = [](char c) -> int {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
  };
  if (text.size() % 2 != 0) return std::nullopt;
  std::string bytes;
  bytes.reserve(text.size() / 2);
  for (std::size_t i = 0; i < text.size(); i += 2) {
    const int high = nibble(text[i]);
    const int low = nibble(text[i + 1]);
    if (high < 0 || low < 0) return std::nullopt;
    bytes += static_cast<char>(high * 16 + low);
  }
  return bytes;
}

std::optional<std::string> decode_base64(std::string_view text) {
  // OpenSSL's decoder requires the standard alphabet, full padding, and no surrounding text.
  std::string_view digits = text;
  while (!digits.empty() && digits.back() == '=') digits.remove_suffix(1);
  if (text.size() - digits.size() > 2 || digits.size() % 4 == 1) return std::nullopt;
  for (const char c : digits) {
    if (std::isalnum(static_cast<unsigned char>(c)) == 0 && c != '+' && c != '/' && c != '-' &&
        c != '_') {
      return std::nullopt;
    }
  }
  const std::size_t padding = (4 - digits.size() % 4) % 4;
  std::string classic;
  classic.reserve(digits.size() + padding);  // no reallocation, so that one wipe covers it
  classic = digits;
  std::ranges::replace(classic, '-', '+');
  std::ranges::replace(classic, '_', '/');
  classic.append(padding, '=');
  std::string bytes(classic.size() / 4 * 3, '\0');
  const int length = EVP_DecodeBlock(reinterpret_cast<unsigned char*>(bytes.data()),
                                     reinterpret_cast<const unsigned char*>(classic.data()),
                                     static_cast<int>(classic.size()));
  OPENSSL_cleanse(classic.data(), classic.size());
  if (length < 0) return std::nullopt;
  bytes.resize(static_cast<std::size_t>(length) - padding);
  return bytes;
}

std::optional<std::string> decode_base64url(std::string_view text) {
  constexpr std::string_view kAlphabet =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
  if (text.find_first_of("+/=") != std::string_view::npos) return std::nullopt;
  if (text.size() % 4 != 0) {
    const std::size_t last = kAlphabet.find(text.back());
    const std::size_t spare = text.size() % 4 == 2 ? 0xF : 0x3;
    if (last == std::string_view::npos || (last & spare) != 0) return std::nullopt;
  }
  return decode_base64(text);
}

}  // namespace latchkey
