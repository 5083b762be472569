// Unguessable text: nonces and channels that other sessions cannot forge.
#pragma once

#include <cstddef>
#include <string>

namespace latchkey {

// Throws std::runtime_error if the system has no randomness (RAND_bytes(3)).
[[nodiscard]] std::string random_hex(std::size_t bytes);

}  // namespace latchkey
