// New keys: PREFIX_ + 22 base62 characters (131 random bits) + 6 base62 characters of a CRC-32.
//
// The form is GitHub's: the prefix tells whose key it is, the underscore lets a double click select
// all of it, and the checksum lets a scanner tell a key from noise without asking anybody. It
// covers everything before it and is no secret: it protects against typing errors, not against
// forgery. keys/key_form knows such a key again.
#pragma once

#include <string>
#include <string_view>

namespace latchkey {

// `prefix` as is_key_prefix() takes it.
[[nodiscard]] std::string mint_key(std::string_view prefix);

[[nodiscard]] std::string to_hex(std::string_view bytes);

}  // namespace latchkey
