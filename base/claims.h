// Encoding of one claim of an answer: tag, length, value (wire.h, latchkey_claim).
//
// Separate from the codec because keymap/record stores claims already encoded and needs no other
// part of the protocol.
#pragma once

#include <cstdint>
#include <cstring>
#include <string_view>

#include "base/bytes.h"
#include "latchkey/wire.h"

namespace latchkey {

// Requires room for LATCHKEY_CLAIM_BYTES plus the value at `to`. Returns the end of the claim.
inline std::uint8_t* put_claim(std::uint8_t* to, latchkey_claim tag, std::string_view value) {
  to[0] = static_cast<std::uint8_t>(tag);
  store_le<std::uint16_t>(to + 1, static_cast<std::uint16_t>(value.size()));
  if (!value.empty()) std::memcpy(to + LATCHKEY_CLAIM_BYTES, value.data(), value.size());
  return to + LATCHKEY_CLAIM_BYTES + value.size();
}

inline std::uint8_t* put_claim(std::uint8_t* to, latchkey_claim tag, std::int64_t value) {
  to[0] = static_cast<std::uint8_t>(tag);
  store_le<std::uint16_t>(to + 1, sizeof value);
  store_le(to + LATCHKEY_CLAIM_BYTES, value);
  return to + LATCHKEY_CLAIM_BYTES + sizeof value;
}

}  // namespace latchkey
