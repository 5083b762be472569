// How a presented key becomes the 32 bytes that identify it.
//
// Two functions cover all four schemes. Plain-text, SHA-256 and JWT columns are matched by the
// SHA-256 of the whole presented text (for plain text and JWT, PostgreSQL computes it in the
// query, so a stored key never enters this process); HMAC columns by HMAC-SHA-256 under each
// pepper version that is alive. The digest is the identity: nothing shorter ever decides.
//
// Keys are digested many at a time, because two at once take little more time than one
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

  // All 32 bytes, in a time that does not depend on where they differ: an answer's delay tells
  // nothing of how much of a stored digest a guess has matched. Not CRYPTO_memcmp(), which does
  // the same byte by byte behind a call: that took 25 to 30 ns, half of a look-up.
  friend bool operator==(const Digest& a, const Digest& b) {
    std::array<std::uint64_t, 4> x, y;
    static_assert(sizeof x == sizeof a.bytes);
    std::memcpy(x.data(), a.bytes.data(), sizeof x);
    std::memcpy(y.data(), b.bytes.data(), sizeof y);
    std::uint64_t difference = (x[0] ^ y[0]) | (x[1] ^ y[1]) | (x[2] ^ y[2]) | (x[3] ^ y[3]);
    // The compiler knows nothing of the value from here on, so it cannot have left out a part.
    __asm__("" : "+r"(difference));
    return difference == 0;
  }
};
static_assert(sizeof(Digest) == 32);

[[nodiscard]] Digest sha256(std::string_view text);
// digests[i] of texts[i]; as many.
void sha256(std::span<const std::string_view> texts, std::span<Digest> digests);

// HMAC-SHA-256 (RFC 2104) with the two keyed states computed once: a digest then costs the
// compressions of its message and two more, instead of a context set up from nothing.
class HmacKey {
 public:
  explicit HmacKey(std::span<const std::uint8_t> secret);
  ~HmacKey();
  HmacKey(const HmacKey&) = default;
  HmacKey& operator=(const HmacKey&) = default;

  [[nodiscard]] Digest digest(std::string_view text) const;
  void digest(std::span<const std::string_view> texts, std::span<Digest> digests) const;

 private:
  // SHA-256's eight words after one block: the padded secret.
  std::array<std::uint32_t, 8> inner_;
  std::array<std::uint32_t, 8> outer_;
};

// Spreads digests over a table's slots: XXH3 under a secret that is random in each process, so that
// nobody who can choose stored digests can choose where they land. Not an identity.
[[nodiscard]] std::uint64_t slot_hash(const Digest& digest);
// hashes[i] of digests[i].
void slot_hashes(std::span<const Digest> digests, std::uint64_t* hashes);
// The same for the texts that private indexes are made of (row ids, tenants, scopes): whoever can
// choose them cannot choose where they land either.
[[nodiscard]] std::uint64_t text_hash(std::string_view text);

}  // namespace latchkey
