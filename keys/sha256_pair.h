// SHA-256 of many messages, two at a time.
//
// The SHA instructions of x86-64 (Intel, AMD since Zen) wait on each other within one message: half
// of the processor's time goes unused. Two messages interleaved fill it (bench/README.md has the
// figures). OpenSSL offers no such function for digests, so the block function is our own, 64
// rounds of intrinsics held against OpenSSL by tests; where a processor lacks the instructions,
// OpenSSL does everything.
//
// FIPS 180-4 names what is used here: state, block, compression.
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

// One block more.
void sha256_compress(Sha256State& state, const std::uint8_t* block);

// What comes out of `state` (reached by `before` bytes, a multiple of the block) with the rest of a
// message: results[i] for texts[i]. In pairs, nothing of the texts is left behind
// in memory; what OpenSSL leaves on its stack is OpenSSL's.
void sha256_finish(const Sha256State& state, std::uint64_t before,
                   std::span<const std::string_view> texts, std::span<Sha256State> results);

// The 32 bytes that a final state stands for.
void sha256_bytes(const Sha256State& state, std::uint8_t* bytes);

// The two ways it goes. In pairs: only where sha256_pairs() says that the processor can.
[[nodiscard]] bool sha256_pairs();
void sha256_finish_in_pairs(const Sha256State& state, std::uint64_t before,
                            std::span<const std::string_view> texts,
                            std::span<Sha256State> results);
void sha256_finish_one_by_one(const Sha256State& state, std::uint64_t before,
                              std::span<const std::string_view> texts,
                              std::span<Sha256State> results);

}  // namespace latchkey
