// Base64 encoding for tests of the decoders.
#pragma once

#include <openssl/evp.h>

#include <string>
#include <string_view>

namespace latchkey::test {

inline std::string base64(std::string_view bytes, bool url = false, bool padded = true) {
  std::string text(4 * ((bytes.size() + 2) / 3) + 1, '\0');
  text.resize(static_cast<std::size_t>(EVP_EncodeBlock(
      reinterpret_cast<unsigned char*>(text.data()),
      reinterpret_cast<const unsigned char*>(bytes.data()), static_cast<int>(bytes.size()))));
  for (char& c : text) {
    if (url && c == '+') c = '-';
    if (url && c == '/') c = '_';
  }
  while (!padded && !text.empty() && text.back() == '=') text.pop_back();
  return text;
}

}  // namespace latchkey::test
