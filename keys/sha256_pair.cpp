#include "keys/sha256_pair.h"

#include <openssl/crypto.h>
#include <openssl/sha.h>

#include <algorithm>
#include <bit>
#include <cassert>
#include <cstring>
#include <utility>

#ifdef __x86_64__
#include <cpuid.h>
#include <immintrin.h>
#endif

namespace latchkey {

const Sha256State kSha256Initial = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                    0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};

// Uses OpenSSL's block function, which selects the fastest code for one message.
void sha256_compress(Sha256State& state, const std::uint8_t* block) {
  SHA256_CTX context{};
  std::ranges::copy(state, context.h);
  SHA256_Transform(&context, block);
  std::ranges::copy(context.h, state.begin());
  OPENSSL_cleanse(&context, sizeof context);  // an HMAC key's state is equivalent to the key
}

void sha256_bytes(const Sha256State& state, std::uint8_t* bytes) {
  for (std::size_t i = 0; i < state.size(); ++i) {
    const std::uint32_t big_endian = __builtin_bswap32(state[i]);
    static_assert(std::endian::native == std::endian::little);
    std::memcpy(bytes + 4 * i, &big_endian, sizeof big_endian);
  }
}

namespace {

// ---- one message and its progress

class Lane {
 public:
  void begin(const Sha256State& state, std::uint64_t before, std::string_view text) {
    state_ = state;
    at_ = reinterpret_cast<const std::uint8_t*>(text.data());
    whole_ = text.size() / kSha256Block;
    const std::size_t rest = text.size() % kSha256Block;
    // FIPS 180-4, 5.1.1: a one bit, zeros, and the length in bits as 64 bits at a block's end.
    last_blocks_ = rest + 9 <= kSha256Block ? 1 : 2;
    const std::size_t size = last_blocks_ * kSha256Block;
    if (rest > 0) std::memcpy(last_.data(), at_ + whole_ * kSha256Block, rest);
    std::memset(last_.data() + rest, 0, size - rest);
    last_[rest] = 0x80;
    const std::uint64_t bits = __builtin_bswap64((before + text.size()) * 8);
    std::memcpy(last_.data() + size - sizeof bits, &bits, sizeof bits);
    if (whole_ == 0) turn_to_last();
  }
  ~Lane() { OPENSSL_cleanse(last_.data(), last_.size()); }  // contained the end of a key
  Lane() = default;
  Lane(const Lane&) = delete;
  Lane& operator=(const Lane&) = delete;

  [[nodiscard]] bool done() const { return whole_ == 0; }
  // Number of contiguous blocks available at blocks().
  [[nodiscard]] std::size_t run() const { return whole_; }
  [[nodiscard]] const std::uint8_t* blocks() const { return at_; }
  void took(std::size_t count) {
    at_ += count * kSha256Block;
    whole_ -= count;
    if (whole_ == 0) turn_to_last();
  }
  Sha256State& state() { return state_; }

 private:
  void turn_to_last() {
    at_ = last_.data();
    whole_ = std::exchange(last_blocks_, 0);
  }

  Sha256State state_{};
  const std::uint8_t* at_ = nullptr;
  std::size_t whole_ = 0;
  std::size_t last_blocks_ = 0;
  std::array<std::uint8_t, 2 * kSha256Block> last_{};
};

#ifdef __x86_64__

bool has_sha_instructions() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (__get_cpuid_count(7, 0, &a, &b, &c, &d) == 0 || (b & bit_SHA) == 0) return false;
  return __get_cpuid(1, &a, &b, &c, &d) != 0 && (c & bit_SSE4_1) != 0 && (c & bit_SSSE3) != 0;
}

alignas(64) constexpr std::uint32_t kRoundConstants[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

// The state in the layout of the instructions: words a b e f and c d g h.
struct Halves {
  __m128i abef;
  __m128i cdgh;
};

__attribute__((target("sha,sse4.1,ssse3"))) inline Halves halves_of(const Sha256State& state) {
  const __m128i abcd = _mm_shuffle_epi32(
      _mm_loadu_si128(reinterpret_cast<const __m128i*>(state.data())), 0xB1);  // b a d c
  const __m128i efgh = _mm_shuffle_epi32(
      _mm_loadu_si128(reinterpret_cast<const __m128i*>(state.data() + 4)), 0x1B);  // h g f e
  return {_mm_alignr_epi8(abcd, efgh, 8), _mm_blend_epi16(efgh, abcd, 0xF0)};
}

__attribute__((target("sha,sse4.1,ssse3"))) inline void store(const Halves& halves,
                                                              Sha256State& state) {
  const __m128i feba = _mm_shuffle_epi32(halves.abef, 0x1B);
  const __m128i dchg = _mm_shuffle_epi32(halves.cdgh, 0xB1);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(state.data()), _mm_blend_epi16(feba, dchg, 0xF0));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(state.data() + 4), _mm_alignr_epi8(dchg, feba, 8));
}

// Sixteen words of a block's message schedule, four per register, used cyclically.
struct Schedule {
  __m128i words[4];
};

__attribute__((target("sha,sse4.1,ssse3"))) inline Schedule schedule_of(const std::uint8_t* block) {
  const __m128i big_endian = _mm_set_epi64x(0x0c0d0e0f08090a0b, 0x0405060700010203);
  Schedule schedule;
  // Unrolled, so that it stays in registers; otherwise a copy of the key would remain on the stack.
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    schedule.words[i] =
        _mm_shuffle_epi8(_mm_loadu_si128(reinterpret_cast<const __m128i*>(block) + i), big_endian);
  }
  return schedule;
}

// Replaces words 4i to 4i+3 by words 4i+16 to 4i+19 (FIPS 180-4, 6.2.2, step 1).
__attribute__((target("sha,sse4.1,ssse3"))) inline void extend(Schedule& schedule, int i) {
  __m128i* w = schedule.words;
  const __m128i seven_back = _mm_alignr_epi8(w[(i + 3) & 3], w[(i + 2) & 3], 4);
  w[i & 3] = _mm_sha256msg2_epu32(
      _mm_add_epi32(_mm_sha256msg1_epu32(w[i & 3], w[(i + 1) & 3]), seven_back), w[(i + 3) & 3]);
}

// Four rounds.
__attribute__((target("sha,sse4.1,ssse3"))) inline void rounds(Halves& state, __m128i words,
                                                               int i) {
  const __m128i sum =
      _mm_add_epi32(words, _mm_load_si128(reinterpret_cast<const __m128i*>(kRoundConstants) + i));
  state.cdgh = _mm_sha256rnds2_epu32(state.cdgh, state.abef, sum);
  state.abef = _mm_sha256rnds2_epu32(state.abef, state.cdgh, _mm_shuffle_epi32(sum, 0x0E));
}

// Processes `count` blocks of each of two messages, with interleaved instructions.
__attribute__((target("sha,sse4.1,ssse3"))) void compress_pair(Sha256State& state_a,
                                                               const std::uint8_t* a,
                                                               Sha256State& state_b,
                                                               const std::uint8_t* b,
                                                               std::size_t count) {
  Halves one = halves_of(state_a);
  Halves two = halves_of(state_b);
  for (; count > 0; --count, a += kSha256Block, b += kSha256Block) {
    const Halves one_before = one;
    const Halves two_before = two;
    Schedule words_one = schedule_of(a);
    Schedule words_two = schedule_of(b);
#pragma GCC unroll 16
    for (int i = 0; i < 16; ++i) {
      rounds(one, words_one.words[i & 3], i);
      rounds(two, words_two.words[i & 3], i);
      if (i < 12) {
        extend(words_one, i);
        extend(words_two, i);
      }
    }
    one.abef = _mm_add_epi32(one.abef, one_before.abef);
    one.cdgh = _mm_add_epi32(one.cdgh, one_before.cdgh);
    two.abef = _mm_add_epi32(two.abef, two_before.abef);
    two.cdgh = _mm_add_epi32(two.cdgh, two_before.cdgh);
  }
  store(one, state_a);
  store(two, state_b);
}

#else

bool has_sha_instructions() { return false; }
void compress_pair(Sha256State&, const std::uint8_t*, Sha256State&, const std::uint8_t*,
                   std::size_t) {
  assert(false);
}

#endif

}  // namespace

bool sha256_pairs() {
  static const bool possible = has_sha_instructions();
  return possible;
}

void sha256_finish(const Sha256State& state, std::uint64_t before,
                   std::span<const std::string_view> texts, std::span<Sha256State> results) {
  if (sha256_pairs()) {
    sha256_finish_in_pairs(state, before, texts, results);
  } else {
    sha256_finish_one_by_one(state, before, texts, results);
  }
}

void sha256_finish_one_by_one(const Sha256State& state, std::uint64_t before,
                              std::span<const std::string_view> texts,
                              std::span<Sha256State> results) {
  assert(before % kSha256Block == 0 && results.size() >= texts.size());
  Lane lane;
  for (std::size_t i = 0; i < texts.size(); ++i) {
    lane.begin(state, before, texts[i]);
    for (; !lane.done(); lane.took(1)) sha256_compress(lane.state(), lane.blocks());
    results[i] = lane.state();
  }
}

// Two lanes with one message each; a finished lane takes the next message.
void sha256_finish_in_pairs(const Sha256State& state, std::uint64_t before,
                            std::span<const std::string_view> texts,
                            std::span<Sha256State> results) {
  assert(before % kSha256Block == 0 && results.size() >= texts.size());
  std::array<Lane, 2> lanes;
  std::array<std::size_t, 2> message{};
  std::size_t next = 0;
  const auto refill = [&](std::size_t lane) {
    message[lane] = next++;
    lanes[lane].begin(state, before, texts[message[lane]]);
  };
  for (std::size_t lane = 0; lane < 2 && next < texts.size(); ++lane) refill(lane);
  while (!lanes[0].done() && !lanes[1].done()) {
    const std::size_t count = std::min(lanes[0].run(), lanes[1].run());
    compress_pair(lanes[0].state(), lanes[0].blocks(), lanes[1].state(), lanes[1].blocks(), count);
    for (std::size_t lane = 0; lane < 2; ++lane) {
      lanes[lane].took(count);
      if (!lanes[lane].done()) continue;
      results[message[lane]] = lanes[lane].state();
      if (next < texts.size()) refill(lane);
    }
  }
  for (std::size_t lane = 0; lane < 2; ++lane) {
    while (!lanes[lane].done()) {
      // Pairs the message with itself, which takes no longer than one message alone and less time
      // than OpenSSL.
      Sha256State same = lanes[lane].state();
      const std::size_t count = lanes[lane].run();
      compress_pair(lanes[lane].state(), lanes[lane].blocks(), same, lanes[lane].blocks(), count);
      lanes[lane].took(count);
      results[message[lane]] = lanes[lane].state();
    }
  }
}

}  // namespace latchkey
