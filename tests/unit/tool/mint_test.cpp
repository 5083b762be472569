// The form of minted keys.
#include "tool/mint.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "keys/key_form.h"
#include "tests/unit/support/helpers.h"

namespace latchkey {
namespace {

constexpr std::string_view kBase62 =
    "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

// CRC-32 as RFC 1952 defines it, bit by bit.
std::uint32_t crc32(std::string_view text) {
  std::uint32_t crc = 0xFFFFFFFFu;
  for (const char c : text) {
    crc ^= static_cast<unsigned char>(c);
    for (int i = 0; i < 8; ++i) crc = (crc >> 1) ^ ((crc & 1) != 0 ? 0xEDB88320u : 0);
  }
  return ~crc;
}

std::string with_checksum(std::string text) {
  std::uint32_t crc = crc32(text);
  std::string checksum(6, '0');
  for (std::size_t i = 6; i-- > 0; crc /= 62) checksum[i] = kBase62[crc % 62];
  return text + checksum;
}

TEST(Mint, MakesKeysOfTheForm) {
  EXPECT_EQ(crc32("123456789"), 0xCBF43926u) << "the published check value";
  for (const std::string prefix : {"lk", "a", "acme_live", "A_1_", "_", "x________y"}) {
    const std::string key = mint_key(prefix);
    SCOPED_TRACE(key);
    EXPECT_EQ(key.size(), prefix.size() + 1 + 22 + 6);
    EXPECT_TRUE(key.starts_with(prefix + "_"));
    EXPECT_EQ(key.substr(prefix.size() + 1).find_first_not_of(kBase62), std::string::npos);
    EXPECT_EQ(with_checksum(key.substr(0, key.size() - 6)), key);
    EXPECT_TRUE(is_minted_key(key));
  }
}

TEST(Mint, MakesNoKeyTwiceAndUsesEachCharacterInEachPlace) {
  constexpr int kKeys = 10'000;
  std::set<std::string> keys;
  std::array<std::set<char>, 22> seen;
  for (int i = 0; i < kKeys; ++i) {
    const std::string key = mint_key("k");
    for (std::size_t at = 0; at < seen.size(); ++at) seen[at].insert(key[2 + at]);
    keys.insert(key);
  }
  EXPECT_EQ(keys.size(), static_cast<std::size_t>(kKeys));
  for (const auto& characters : seen) EXPECT_EQ(characters.size(), kBase62.size());
}

TEST(Mint, KnowsPrefixes) {
  for (const std::string good : {"a", "Z", "0", "_", "acme_live_2"}) {
    EXPECT_TRUE(is_key_prefix(good)) << good;
  }
  EXPECT_TRUE(is_key_prefix(std::string(32, 'x')));
  EXPECT_FALSE(is_key_prefix(std::string(33, 'x')));
  for (const std::string bad : {"", "-", "a-b", "a b", "a.b", "a\n", "\xC3\xA9", "a/b"}) {
    EXPECT_FALSE(is_key_prefix(bad)) << bad;
  }
  EXPECT_FALSE(is_key_prefix(std::string_view("a\0b", 3)));
}

TEST(Mint, RejectsEveryErrorOfOneCharacter) {
  const std::string key = mint_key("acme_live");
  for (std::size_t at = 0; at < key.size(); ++at) {
    for (int c = 0; c < 256; ++c) {
      std::string wrong = key;
      wrong[at] = static_cast<char>(c);
      ASSERT_EQ(is_minted_key(wrong), wrong == key) << wrong;
    }
    std::string shorter = key, longer = key, swapped = key;
    shorter.erase(at, 1);
    longer.insert(at, 1, '7');
    EXPECT_FALSE(is_minted_key(shorter)) << shorter;
    EXPECT_FALSE(is_minted_key(longer)) << longer;
    if (at > 0) std::swap(swapped[at], swapped[at - 1]);
    EXPECT_EQ(is_minted_key(swapped), swapped == key) << swapped;
  }
}

TEST(Mint, RejectsWhatIsNotOfTheForm) {
  for (const std::string bad : {"", "_", "a", "a_", "Bearer x", "12345678901234567890123456789"}) {
    EXPECT_FALSE(is_minted_key(bad)) << bad;
  }
  const std::string tail(22, 'x');
  EXPECT_TRUE(is_minted_key(with_checksum("a_" + tail)));
  EXPECT_FALSE(is_minted_key(with_checksum("_" + tail))) << "no prefix";
  EXPECT_FALSE(is_minted_key(with_checksum("a-b_" + tail))) << "no prefix of ours";
  EXPECT_FALSE(is_minted_key(with_checksum(std::string(33, 'a') + "_" + tail)));
  EXPECT_FALSE(is_minted_key(with_checksum("a_" + tail + "x")));
  EXPECT_FALSE(is_minted_key(std::string(1'000'000, 'a')));
}

TEST(Mint, RejectsOtherCharactersUnderAFittingChecksum) {
  for (const std::string random : {"xxxxxxxxxxx xxxxxxxxxx", "xxxxxxxxxxx-xxxxxxxxxx",
                                   "xxxxxxxxxxx_xxxxxxxxxx", "xxxxxxxxxx\xC3\xA9xxxxxxxxxx"}) {
    ASSERT_EQ(random.size(), 22U);
    EXPECT_FALSE(is_minted_key(with_checksum("a_" + random))) << random;
  }
}

TEST(Mint, WritesHex) {
  EXPECT_EQ(to_hex(""), "");
  EXPECT_EQ(to_hex(std::string_view("\0\x7F\xFF\xA5", 4)), "007fffa5");
}

}  // namespace
}  // namespace latchkey
