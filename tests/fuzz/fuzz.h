// Shared parts of the fuzz targets. Each target is one file with one LLVMFuzzerTestOneInput
// (libFuzzer, https://llvm.org/docs/LibFuzzer.html) and begins with the properties that it checks.
#pragma once

#include <fuzzer/FuzzedDataProvider.h>

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

#include "protocol/codec.h"
#include "tests/reference/client_codec.h"

namespace latchkey::fuzz {

// Ends the run: libFuzzer keeps the input, and scripts/fuzz prints the command to replay it.
[[noreturn]] inline void fail(const char* what, const char* file, int line) {
  std::fprintf(stderr, "%s:%d: %s\n", file, line, what);
  std::abort();
}

inline Bytes as_bytes(std::string_view text) {
  return {reinterpret_cast<const std::uint8_t*>(text.data()), text.size()};
}

// The lengths in which a stream arrives. The rest of it arrives at once.
inline std::vector<std::size_t> pieces_from(FuzzedDataProvider& input) {
  std::vector<std::size_t> pieces(input.ConsumeIntegralInRange<std::size_t>(0, 6));
  for (std::size_t& piece : pieces) piece = input.ConsumeIntegralInRange<std::size_t>(1, 300);
  return pieces;
}

inline std::string short_text(FuzzedDataProvider& input, std::size_t bytes_max) {
  return input.ConsumeBytesAsString(input.ConsumeIntegralInRange<std::size_t>(0, bytes_max));
}

// A frame with a correct length and arbitrary content: mutations would otherwise have to guess the
// length before they reach the body.
inline std::string frame_from(FuzzedDataProvider& input, std::size_t body_max) {
  OutBuffer header;
  encode_ping(header, input.ConsumeIntegral<std::uint8_t>());
  std::string frame(as_text(header.bytes()));
  frame[1] = input.ConsumeIntegral<char>();
  frame += short_text(input, body_max);
  store_le<std::uint32_t>(reinterpret_cast<std::uint8_t*>(frame.data()) + 4,
                          static_cast<std::uint32_t>(frame.size()));
  return frame;
}

}  // namespace latchkey::fuzz

#define FUZZ_CHECK(condition)                                          \
  do {                                                                 \
    if (!(condition)) {                                                \
      latchkey::fuzz::fail("not so: " #condition, __FILE__, __LINE__); \
    }                                                                  \
  } while (false)
