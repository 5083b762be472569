// Requests of the binary protocol, encoded.
#pragma once

#include <cstdint>
#include <string>

#include "tests/reference/client_codec.h"

namespace latchkey::test {

inline std::string text_of(const OutBuffer& out) { return std::string(as_text(out.bytes())); }

inline std::string ping(std::uint64_t id) {
  OutBuffer out;
  encode_ping(out, id);
  return text_of(out);
}

inline std::string status(std::uint64_t id) {
  OutBuffer out;
  encode_status(out, id);
  return text_of(out);
}

inline std::string sync(std::uint64_t id, std::uint32_t timeout_ms) {
  OutBuffer out;
  encode_sync(out, id, timeout_ms);
  return text_of(out);
}

}  // namespace latchkey::test
