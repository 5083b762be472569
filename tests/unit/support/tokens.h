// JSON Web Tokens, signed as by an issuer.
#pragma once

#include <string>
#include <string_view>

#include "keys/digest.h"
#include "tests/unit/support/base64.h"
#include "tests/unit/support/helpers.h"

namespace latchkey::test {

// `text` (header and claims, encoded) and its HS256 signature.
inline std::string signed_text(std::string_view secret, const std::string& text) {
  const Digest signature = HmacKey(as_bytes(secret)).digest(text);
  return text + "." + base64(as_text(signature.bytes), true, false);
}

inline std::string token(std::string_view secret, std::string_view claims,
                         std::string_view header = R"({"alg":"HS256","typ":"JWT"})") {
  return signed_text(secret, base64(header, true, false) + "." + base64(claims, true, false));
}

}  // namespace latchkey::test
