// How a presented key becomes the 32 bytes that identify it.
//
// Two functions cover all four schemes. Plain-text, SHA-256 and JWT columns are matched by the
// SHA-256 of the whole presented text (for plain text and JWT, PostgreSQL computes it in the
// query, so a stored key never enters this process); HMAC columns by HMAC-SHA-256 under each
// pepper version that is alive. The digest is the identity: nothing shorter ever decides.
#pragma once

#include <openssl/crypto.h>
#include <openssl/sha.h>

#include <array>
#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>

namespace latchkey {

struct Digest {
  std::array<std::uint8_t, 32> bytes;

  // Takes the same time wherever the two differ, so that an answer's delay tells nothing about how
  // much of a stored digest a guess has matched.
  friend bool operator==(const Digest& a, const Digest& b) {
    return CRYPTO_memcmp(a.bytes.data(), b.bytes.data(), a.bytes.size()) == 0;
  }
};
static_assert(sizeof(Digest) == SHA256_DIGEST_LENGTH);

[[nodiscard]] Digest sha256(std::string_view text);

// HMAC-SHA-256 (RFC 2104) with the two keyed states computed once: a digest then costs the
// compressions of its message and two more, instead of a context set up from nothing.
class HmacKey {
 public:
  explicit HmacKey(std::span<const std::uint8_t> secret);
  ~HmacKey();
  HmacKey(const HmacKey&) = default;
  HmacKey& operator=(const HmacKey&) = default;

  [[nodiscard]] Digest digest(std::string_view text) const;

 private:
  SHA256_CTX inner_;
  SHA256_CTX outer_;
};

// Spreads digests over a table's slots: XXH3 under a secret that is random in each process, so that
// nobody who can choose stored digests can choose where they land. Not an identity.
[[nodiscard]] std::uint64_t slot_hash(const Digest& digest);

}  // namespace latchkey
