// The form of keys that `latchkey mint` makes: PREFIX_ + 22 base62 characters + 6 characters of a
// CRC-32 of all preceding text. The checksum detects lost or mistyped characters without a look-up.
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

// 1 to 32 letters, digits and underscores.
[[nodiscard]] bool is_key_prefix(std::string_view prefix);
// Six base62 characters.
[[nodiscard]] std::string key_checksum(std::string_view text);
// True if the key has this form, regardless of its checksum.
[[nodiscard]] bool has_minted_form(std::string_view key);
// True if the key has this form and a correct checksum.
[[nodiscard]] bool is_minted_key(std::string_view key);

}  // namespace latchkey
