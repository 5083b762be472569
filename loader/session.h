// What every connection of ours begins with.
#pragma once

#include <cstdint>
#include <limits>
#include <string>

namespace latchkey {

constexpr std::int64_t kSecond = 1'000'000'000;  // in ns
constexpr std::int64_t kNoDeadline = std::numeric_limits<std::int64_t>::max();
// Each step of a conversation has this long; a load, for each of its parts.
constexpr std::int64_t kStepDeadline = 10 * kSecond;

// Errors instead of hidden rows; no search path to be led astray by; a lock that somebody holds on
// one table must not keep the changes of others waiting for long.
constexpr const char* kSessionSettings =
    "SET row_security = off;"
    "SET search_path = pg_catalog, pg_temp;"
    "SET lock_timeout = '2s';"
    "SET statement_timeout = 0;"
    "SELECT pg_catalog.set_config(name, '0', false) FROM pg_catalog.pg_settings"
    " WHERE name = 'idle_session_timeout';";

// Unguessable: nonces and channels that nobody else can forge.
[[nodiscard]] std::string random_hex(std::size_t bytes);

}  // namespace latchkey
