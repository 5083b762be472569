#include "keys/digest.h"

#include <openssl/crypto.h>
#include <openssl/rand.h>
#include <openssl/sha.h>

#include <algorithm>
#include <cassert>
#include <cstdlib>

#include "keys/sha256_pair.h"

// Header-only, so that the compiler sees the constant length of 32 bytes.
#define XXH_INLINE_ALL
#include <xxhash.h>

namespace latchkey {

// The SHA256_* functions work on a plain struct that can be copied and kept on the stack. OpenSSL 3
// deprecates them in favour of EVP, whose contexts cost an allocation and five times the time of
// hashing a short key. OPENSSL_API_COMPAT in CMakeLists.txt silences the deprecation.
Digest sha256(std::string_view text) {
  Digest digest;
  SHA256_CTX context;
  SHA256_Init(&context);
  SHA256_Update(&context, text.data(), text.size());
  SHA256_Final(digest.bytes.data(), &context);  // wipes the block that held the text's end
  return digest;
}

namespace {

constexpr std::size_t kPart = 64;  // texts per part

// Splits both spans into parts that fit the stack.
template <typename Finish>
void in_parts(std::span<const std::string_view> texts, std::span<Digest> digests, Finish finish) {
  assert(digests.size() >= texts.size());
  for (std::size_t from = 0; from < texts.size(); from += kPart) {
    const std::size_t count = std::min(kPart, texts.size() - from);
    std::array<Sha256State, kPart> states;
    finish(texts.subspan(from, count), std::span(states).first(count));
    for (std::size_t i = 0; i < count; ++i) {
      sha256_bytes(states[i], digests[from + i].bytes.data());
    }
  }
}

}  // namespace

void sha256(std::span<const std::string_view> texts, std::span<Digest> digests) {
  in_parts(texts, digests, [](std::span<const std::string_view> part, std::span<Sha256State> out) {
    sha256_finish(kSha256Initial, 0, part, out);
  });
}

HmacKey::HmacKey(std::span<const std::uint8_t> secret)
    : inner_(kSha256Initial), outer_(kSha256Initial) {
  std::array<std::uint8_t, kSha256Block> block{};
  if (secret.size() > block.size()) {
    SHA256_CTX context;
    SHA256_Init(&context);
    SHA256_Update(&context, secret.data(), secret.size());
    SHA256_Final(block.data(), &context);
  } else if (!secret.empty()) {
    std::memcpy(block.data(), secret.data(), secret.size());
  }
  for (auto& byte : block) byte ^= 0x36;
  sha256_compress(inner_, block.data());
  for (auto& byte : block) byte ^= 0x36 ^ 0x5c;
  sha256_compress(outer_, block.data());
  OPENSSL_cleanse(block.data(), block.size());
}

HmacKey::~HmacKey() {
  OPENSSL_cleanse(&inner_, sizeof inner_);
  OPENSSL_cleanse(&outer_, sizeof outer_);
}

Digest HmacKey::digest(std::string_view text) const {
  Digest digest;
  this->digest({&text, 1}, {&digest, 1});
  return digest;
}

void HmacKey::digest(std::span<const std::string_view> texts, std::span<Digest> digests) const {
  in_parts(texts, digests, [&](std::span<const std::string_view> part, std::span<Sha256State> out) {
    sha256_finish(inner_, kSha256Block, part, out);
    std::array<std::array<char, sizeof(Digest)>, kPart> inner;
    std::array<std::string_view, kPart> second;
    for (std::size_t i = 0; i < part.size(); ++i) {
      sha256_bytes(out[i], reinterpret_cast<std::uint8_t*>(inner[i].data()));
      second[i] = {inner[i].data(), inner[i].size()};
    }
    sha256_finish(outer_, kSha256Block, std::span(second).first(part.size()), out);
  });
}

namespace {

struct SlotSecret {
  std::array<unsigned char, XXH3_SECRET_SIZE_MIN> bytes;
  SlotSecret() {
    // Without randomness there is no defence against chosen collisions, so the process must not
    // start.
    if (RAND_bytes(bytes.data(), static_cast<int>(bytes.size())) != 1) std::abort();
  }
};

const SlotSecret& slot_secret() {
  static const SlotSecret secret;
  return secret;
}

std::uint64_t hash_under(const SlotSecret& secret, const void* bytes, std::size_t size) {
  return XXH3_64bits_withSecret(bytes, size, secret.bytes.data(), secret.bytes.size());
}

}  // namespace

std::uint64_t slot_hash(const Digest& digest) {
  return hash_under(slot_secret(), digest.bytes.data(), sizeof digest.bytes);
}

void slot_hashes(std::span<const Digest> digests, std::uint64_t* hashes) {
  const SlotSecret& secret = slot_secret();
  for (const Digest& digest : digests) {
    *hashes++ = hash_under(secret, digest.bytes.data(), sizeof digest.bytes);
  }
}

std::uint64_t text_hash(std::string_view text) {
  return hash_under(slot_secret(), text.data(), text.size());
}

}  // namespace latchkey
