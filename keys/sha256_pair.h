// SHA-256 of many messages, two at a time.
//
// Within one message, each SHA instruction of x86-64 (Intel, AMD since Zen) waits for the previous
// one and half of the processor's time goes unused. Two interleaved messages fill it
// (bench/README.md has the figures). OpenSSL has no function for this, so the block function is our
// own: 64 rounds of intrinsics, which tests compare with OpenSSL. On processors without these
// instructions, OpenSSL does everything.
//
// State, block and compression are the terms of FIPS 180-4.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

namespace latchkey {

using Sha256State = std::array<std::uint32_t, 8>;
constexpr std::size_t kSha256Block = 64;

// The state before any block.
extern const Sha256State kSha256Initial;

// Processes one block.
void sha256_compress(Sha256State& state, const std::uint8_t* block);

// Hashes texts[i] as the rest of a message that starts with `state` (after `before` bytes, a
// multiple of the block size) into results[i]. The pair code leaves no part of the texts in memory;
// OpenSSL may leave some on its stack.
void sha256_finish(const Sha256State& state, std::uint64_t before,
                   std::span<const std::string_view> texts, std::span<Sha256State> results);

// Writes the 32 bytes of a final state.
void sha256_bytes(const Sha256State& state, std::uint8_t* bytes);

// The two implementations. Call the pair version only if sha256_pairs() returns true.
[[nodiscard]] bool sha256_pairs();
void sha256_finish_in_pairs(const Sha256State& state, std::uint64_t before,
                            std::span<const std::string_view> texts,
                            std::span<Sha256State> results);
void sha256_finish_one_by_one(const Sha256State& state, std::uint64_t before,
                              std::span<const std::string_view> texts,
                              std::span<Sha256State> results);

}  // namespace latchkey
