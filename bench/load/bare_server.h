// The lower bounds for a server of this kind: one thread with a bare epoll loop, which reads what
// each caller has sent, answers it, and writes.
//
//   echo    returns the first 32 of each 64 bytes, and does nothing else
//   floor   what a verdict needs at least: SHA-256 of the key, a look-up in a flat table, a reply
//           of 64 bytes; no change of keys, no freshness, no claims, no rights, no deadlines
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "protocol/out_buffer.h"

namespace latchkey {

struct BareSettings {
  std::string socket;
  bool spin = false;  // never sleeps: polls the kernel continuously
  int processor = -1;
};

// A request of the floor: id, length of the key, key. Its reply: the id, whether the key is known,
// zeros.
struct FloorRequest {
  std::uint64_t id;
  std::uint8_t length;
  char key[55];
};
struct FloorReply {
  std::uint64_t id;
  std::uint8_t known;
  std::uint8_t zero[55];
};
static_assert(sizeof(FloorRequest) == 64 && sizeof(FloorReply) == 64);

// Both serve until SIGTERM or SIGINT, and throw std::runtime_error.
void serve_echo(const BareSettings& settings);
// Knows the first `keys` generated keys.
void serve_floor(const BareSettings& settings, std::uint64_t keys);

}  // namespace latchkey
