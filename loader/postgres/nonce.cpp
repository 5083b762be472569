#include "loader/postgres/nonce.h"

#include <openssl/rand.h>

#include <stdexcept>

namespace latchkey {

std::string random_hex(std::size_t bytes) {
  std::string raw(bytes, '\0');
  if (RAND_bytes(reinterpret_cast<unsigned char*>(raw.data()), static_cast<int>(bytes)) != 1) {
    throw std::runtime_error("no randomness");
  }
  std::string hex;
  for (const char c : raw) {
    constexpr const char* kDigits = "0123456789abcdef";
    hex += kDigits[static_cast<unsigned char>(c) >> 4];
    hex += kDigits[c & 15];
  }
  return hex;
}

}  // namespace latchkey
