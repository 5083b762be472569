// New keys: PREFIX_ + 22 base62 characters (131 random bits) + 6 base62 characters of a CRC-32.
//
// The form is GitHub's: the prefix names the issuer, the underscore lets a double click select the
// whole key, and the checksum lets a scanner distinguish a key from noise without a request. The
// checksum covers all characters before it and is no secret: it protects against typing errors, not
// against forgery. keys/key_form recognizes keys of this form.
#pragma once

#include <string>
#include <string_view>

namespace latchkey {

// `prefix` must satisfy is_key_prefix().
[[nodiscard]] std::string mint_key(std::string_view prefix);

[[nodiscard]] std::string to_hex(std::string_view bytes);

}  // namespace latchkey
