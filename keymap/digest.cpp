#include "keymap/digest.h"

#include <openssl/rand.h>

#include <cstdlib>

// Header-only, so that the constant length of 32 bytes is compiled in.
#define XXH_INLINE_ALL
#include <xxhash.h>

namespace latchkey {

// The SHA256_* functions work on a plain struct that can be copied and kept on the stack. OpenSSL 3
// calls them deprecated in favour of EVP, whose contexts cost an allocation and five times the time
// of hashing a short key; OPENSSL_API_COMPAT in CMakeLists.txt says that we know.
Digest sha256(std::string_view text) {
  Digest digest;
  SHA256_CTX context;
  SHA256_Init(&context);
  SHA256_Update(&context, text.data(), text.size());
  SHA256_Final(digest.bytes.data(), &context);  // wipes the block that held the text's end
  return digest;
}

HmacKey::HmacKey(std::span<const std::uint8_t> secret) {
  std::array<std::uint8_t, SHA256_CBLOCK> block{};
  if (secret.size() > block.size()) {
    SHA256_CTX context;
    SHA256_Init(&context);
    SHA256_Update(&context, secret.data(), secret.size());
    SHA256_Final(block.data(), &context);
  } else if (!secret.empty()) {
    std::memcpy(block.data(), secret.data(), secret.size());
  }
  for (auto& byte : block) byte ^= 0x36;
  SHA256_Init(&inner_);
  SHA256_Update(&inner_, block.data(), block.size());
  for (auto& byte : block) byte ^= 0x36 ^ 0x5c;
  SHA256_Init(&outer_);
  SHA256_Update(&outer_, block.data(), block.size());
  OPENSSL_cleanse(block.data(), block.size());
}

HmacKey::~HmacKey() {
  OPENSSL_cleanse(&inner_, sizeof inner_);
  OPENSSL_cleanse(&outer_, sizeof outer_);
}

Digest HmacKey::digest(std::string_view text) const {
  Digest digest;
  SHA256_CTX context = inner_;
  SHA256_Update(&context, text.data(), text.size());
  SHA256_Final(digest.bytes.data(), &context);
  context = outer_;
  SHA256_Update(&context, digest.bytes.data(), digest.bytes.size());
  SHA256_Final(digest.bytes.data(), &context);
  return digest;
}

namespace {

struct SlotSecret {
  std::array<unsigned char, XXH3_SECRET_SIZE_MIN> bytes;
  SlotSecret() {
    // Without randomness there is no defence against chosen collisions: better not to start.
    if (RAND_bytes(bytes.data(), static_cast<int>(bytes.size())) != 1) std::abort();
  }
};

}  // namespace

std::uint64_t slot_hash(const Digest& digest) {
  static const SlotSecret secret;
  return XXH3_64bits_withSecret(digest.bytes.data(), digest.bytes.size(), secret.bytes.data(),
                                secret.bytes.size());
}

}  // namespace latchkey
