// The form of a key that `latchkey mint` makes: PREFIX_ + 22 base62 characters + 6 of a CRC-32 of
// all that stands before. Whoever has lost or mistyped a character can be told so without a look at
// any table.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace latchkey {

inline constexpr std::string_view kKeyAlphabet =
    "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
inline constexpr std::size_t kRandomCharacters = 22;   // 62^22 > 2^130
inline constexpr std::size_t kChecksumCharacters = 6;  // 62^6 > 2^32
inline constexpr std::size_t kKeyPrefixMax = 32;

// Letters, digits and underscores, 1 to 32 of them.
[[nodiscard]] bool is_key_prefix(std::string_view prefix);
// Six base62 characters.
[[nodiscard]] std::string key_checksum(std::string_view text);
// Is it of that form, whatever its checksum?
[[nodiscard]] bool has_minted_form(std::string_view key);
// And does its checksum fit?
[[nodiscard]] bool is_minted_key(std::string_view key);

}  // namespace latchkey
