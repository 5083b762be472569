// One claim of an answer: tag, length, value (wire.h, latchkey_claim).
//
// Apart from the codec because records are stored with their claims already encoded
// (keymap/record), and need no more of the wire than this.
#pragma once

#include <cstdint>
#include <cstring>
#include <string_view>

#include "base/bytes.h"
#include "latchkey/wire.h"

namespace latchkey {

// Writes at `to`, which has room for LATCHKEY_CLAIM_BYTES and the value; returns the claim's end.
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
