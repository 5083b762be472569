// Decoders for hex, base64 and base64url (RFC 4648).
//
// Decoded bytes may be secret: the decoders wipe their working copies, the caller wipes the result.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace latchkey {

[[nodiscard]] std::optional<std::string> decode_hex(std::string_view text);
// RFC 4648 base64 or base64url, with or without padding.
[[nodiscard]] std::optional<std::string> decode_base64(std::string_view text);
// The form that JWS uses (RFC 7515 section 2): base64url without padding, with zero in the unused
// bits of the last character. Each byte string therefore has exactly one encoding.
[[nodiscard]] std::optional<std::string> decode_base64url(std::string_view text);

}  // namespace latchkey
