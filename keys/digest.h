// Computes the 32-byte digest that identifies a presented key.
//
// Two functions cover all four schemes. Plain-text, SHA-256 and JWT columns are matched by the
// SHA-256 of the whole presented text (for plain text and JWT, PostgreSQL computes it in the query,
// so a stored key never enters this process). HMAC columns are matched by HMAC-SHA-256 under each
// active pepper version. Only the full digest identifies a key; no shorter value ever decides.
//
// Keys are digested in batches, because two at once take little more time than one
// (keys/sha256_pair.h).
// (keys/sha256_pair.h).
#pragma once

#include <array>
#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>

namespace latchkey {

struct Digest {
  std::array<std::uint8_t, 32> bytes;

  // Compares all 32 bytes in constant time: response time must not reveal how much of a stored
  // digest a guess matches. Not CRYPTO_memcmp(), which compares byte by byte in a function call: it
  // took 25 to 30 ns, half of a look-up.
  friend bool operator==(const Digest& a, const Digest& b) {
    std::array<std::uint64_t, 4> x, y;
    static_assert(sizeof x == sizeof a.bytes);
    std::memcpy(x.data(), a.bytes.data(), sizeof x);
    std::memcpy(y.data(), b.bytes.data(), sizeof y);
    std::uint64_t difference = (x[0] ^ y[0]) | (x[1] ^ y[1]) | (x[2] ^ y[2]) | (x[3] ^ y[3]);
    // Hides the value from the compiler, so that it cannot skip part of the comparison.
    __asm__("" : "+r"(difference));
    return difference == 0;
  }
};
static_assert(sizeof(Digest) == 32);

[[nodiscard]] Digest sha256(std::string_view text);
// digests[i] receives the digest of texts[i].
void sha256(std::span<const std::string_view> texts, std::span<Digest> digests);

// HMAC-SHA-256 (RFC 2104) with both keyed states precomputed: a digest costs the compressions of
// the padded message and one more, without setting up a context.
class HmacKey {
 public:
  explicit HmacKey(std::span<const std::uint8_t> secret);
  ~HmacKey();
  HmacKey(const HmacKey&) = default;
  HmacKey& operator=(const HmacKey&) = default;

  [[nodiscard]] Digest digest(std::string_view text) const;
  void digest(std::span<const std::string_view> texts, std::span<Digest> digests) const;

 private:
  // SHA-256's eight state words after the padded secret's block.
  std::array<std::uint32_t, 8> inner_;
  std::array<std::uint32_t, 8> outer_;
};

// Distributes digests over the slots of a table: XXH3 under a random secret of this process, so
// that an attacker who can choose stored digests cannot choose their slots. Not an identity.
[[nodiscard]] std::uint64_t slot_hash(const Digest& digest);
// hashes[i] receives the hash of digests[i].
void slot_hashes(std::span<const Digest> digests, std::uint64_t* hashes);
// The same for texts in internal indexes (row ids, tenants, scopes), which an attacker may also
// choose.
[[nodiscard]] std::uint64_t text_hash(std::string_view text);

}  // namespace latchkey
