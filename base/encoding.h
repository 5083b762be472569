// Bytes written as text: hex, base64 and base64url (RFC 4648).
//
// What is decoded may be secret: working copies are wiped, the result is the caller's to wipe.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace latchkey {

[[nodiscard]] std::optional<std::string> decode_hex(std::string_view text);
// RFC 4648 base64 or base64url, with or without padding.
[[nodiscard]] std::optional<std::string> decode_base64(std::string_view text);
// As a JWS writes it (RFC 7515 section 2): base64url without padding, and the bits that the last
// character has too many are zero. So the same bytes are always the same text.
[[nodiscard]] std::optional<std::string> decode_base64url(std::string_view text);

}  // namespace latchkey
