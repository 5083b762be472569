// SHA-256 and HMAC-SHA-256 against the published vectors: FIPS 180-4 examples and RFC 4231.
#include "keys/digest.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "tests/unit/support/helpers.h"

namespace latchkey {
namespace {

using test::as_bytes;

std::string hex(const Digest& digest) {
  std::string text;
  for (const std::uint8_t byte : digest.bytes) {
    text += "0123456789abcdef"[byte >> 4];
    text += "0123456789abcdef"[byte & 15];
  }
  return text;
}

std::string repeated(std::size_t count, int byte) {
  return std::string(count, static_cast<char>(byte));
}

TEST(Sha256, AgreesWithFips180) {
  const struct {
    std::string text;
    const char* digest;
  } cases[] = {
      {"", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
      {"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},
      {"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
       "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"},
      {"abcdefghbcdefghicdefghijdefghijkefghijklfghijklmghijklmn"
       "hijklmnoijklmnopjklmnopqklmnopqrlmnopqrsmnopqrstnopqrstu",
       "cf5b16a778af8380036ce59e7b0492370b249b11e8f07a51afac45037afee9d1"},
      {std::string(1'000'000, 'a'),
       "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0"},
  };
  for (const auto& c : cases) EXPECT_EQ(hex(sha256(c.text)), c.digest) << c.text.size();
}

struct HmacCase {
  const char* name;
  std::string secret;
  std::string text;
  const char* digest;  // RFC 4231 gives only the first 16 bytes of case 5
};

std::vector<HmacCase> rfc4231() {
  std::string counting;
  for (char byte = 1; byte <= 25; ++byte) counting += byte;
  return {
      {"1", repeated(20, 0x0b), "Hi There",
       "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"},
      {"2: a key shorter than the digest", "Jefe", "what do ya want for nothing?",
       "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"},
      {"3", repeated(20, 0xaa), repeated(50, 0xdd),
       "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe"},
      {"4", counting, repeated(50, 0xcd),
       "82558a389a443c0ea4cc819899f2083a85f0faa3e578f8077a2e3ff46729665b"},
      {"5: truncated", repeated(20, 0x0c), "Test With Truncation",
       "a3b6167473100ee06e0c796c2955552b"},
      {"6: a key longer than the block", repeated(131, 0xaa),
       "Test Using Larger Than Block-Size Key - Hash Key First",
       "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54"},
      {"7: both longer than the block", repeated(131, 0xaa),
       "This is a test using a larger than block-size key and a larger than block-size data. The "
       "key needs to be hashed before being used by the HMAC algorithm.",
       "9b09ffa71b942fcb27635fbcd5b0e944bfdc63644f0713938a7f51535c3a35e2"},
  };
}

TEST(HmacKey, AgreesWithRfc4231) {
  for (const HmacCase& c : rfc4231()) {
    const HmacKey key(as_bytes(c.secret));
    const std::string expected = c.digest;
    EXPECT_EQ(hex(key.digest(c.text)).substr(0, expected.size()), expected) << c.name;
  }
}

TEST(HmacKey, DigestsTheSameAgainAndAsACopy) {
  const HmacCase c = rfc4231()[1];
  const HmacKey key(as_bytes(c.secret));
  const HmacKey copy = key;
  for (int i = 0; i < 3; ++i) EXPECT_EQ(hex(key.digest(c.text)), c.digest);
  EXPECT_EQ(hex(copy.digest(c.text)), c.digest);
}

TEST(HmacKey, HashesASecretOnlyIfItIsLongerThanABlock) {
  const std::string block = repeated(64, 0x61);
  const std::string longer = repeated(65, 0x61);
  const Digest hashed = sha256(longer);
  EXPECT_EQ(HmacKey(as_bytes(longer)).digest("text"), HmacKey(hashed.bytes).digest("text"));
  EXPECT_FALSE(HmacKey(as_bytes(block)).digest("text") ==
               HmacKey(sha256(block).bytes).digest("text"));
  // Shorter secrets are padded with zeros: an empty one equals a block of zeros.
  EXPECT_EQ(HmacKey({}).digest("text"), HmacKey(as_bytes(repeated(64, 0))).digest("text"));
}

TEST(Digest, IsEqualOnlyIfEveryBitIs) {
  const Digest digest = sha256("abc");
  EXPECT_EQ(digest, sha256("abc"));
  for (std::size_t bit = 0; bit < 256; ++bit) {
    Digest other = digest;
    other.bytes[bit / 8] ^= static_cast<std::uint8_t>(1U << (bit % 8));
    EXPECT_FALSE(other == digest) << "bit " << bit;
  }
}

TEST(SlotHash, DependsOnEveryByteAndStaysTheSame) {
  const Digest digest = sha256("abc");
  EXPECT_EQ(slot_hash(digest), slot_hash(sha256("abc")));
  for (std::size_t i = 0; i < digest.bytes.size(); ++i) {
    Digest other = digest;
    other.bytes[i] ^= 1;
    EXPECT_NE(slot_hash(other), slot_hash(digest)) << "byte " << i;
  }
}

}  // namespace
}  // namespace latchkey
