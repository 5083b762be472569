// Appends a frame to a buffer: its header, then fields.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/bytes.h"
#include "latchkey/wire.h"
#include "protocol/out_buffer.h"

namespace latchkey {

// Returns where the frame starts; end_frame() sets its length.
inline std::size_t begin_frame(OutBuffer& out, latchkey_type type, std::uint64_t request_id) {
  const std::size_t start = out.size();
  std::uint8_t* header = out.grow(LATCHKEY_HEADER_BYTES);
  header[0] = LATCHKEY_VERSION;
  header[1] = static_cast<std::uint8_t>(type);
  store_le<std::uint16_t>(header + 2, 0);
  store_le<std::uint32_t>(header + 4, LATCHKEY_HEADER_BYTES);
  store_le<std::uint64_t>(header + 8, request_id);
  return start;
}

inline void end_frame(OutBuffer& out, std::size_t start) {
  store_le<std::uint32_t>(out.data() + start + 4, static_cast<std::uint32_t>(out.size() - start));
}

template <typename T>
void put(OutBuffer& out, T value) {
  store_le<T>(out.grow(sizeof(T)), value);
}

template <typename Length>
void put_item(OutBuffer& out, std::string_view item) {
  put(out, static_cast<Length>(item.size()));
  out.append({reinterpret_cast<const std::uint8_t*>(item.data()), item.size()});
}

}  // namespace latchkey
