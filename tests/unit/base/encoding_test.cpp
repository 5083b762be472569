// Bytes as text in hexadecimal and base64, and texts that are not valid.
#include "base/encoding.h"

#include <gtest/gtest.h>

#include "tests/unit/support/base64.h"
#include "tests/unit/support/helpers.h"

namespace latchkey {
namespace {

using test::base64;

TEST(Hex, DecodesHexAndNothingElse) {
  EXPECT_EQ(decode_hex(""), "");
  EXPECT_EQ(decode_hex("00ff7F"), std::string("\0\xFF\x7F", 3));
  EXPECT_EQ(decode_hex("aAbB"), "\xAA\xBB");
  for (const char* bad :
       {"0", "0g", "g0", " 00", "00 ", "0x00", "\\x00", "00\n", "-1", "\xC3\xA9"}) {
    EXPECT_FALSE(decode_hex(bad).has_value()) << bad;
  }
  EXPECT_FALSE(decode_hex(std::string_view("0\0", 2)).has_value());
}

TEST(Base64, DecodesBothAlphabetsWithOrWithoutPadding) {
  test::Random random;
  for (std::size_t size = 0; size <= 70; ++size) {
    std::string bytes;
    for (std::size_t i = 0; i < size; ++i) bytes += static_cast<char>(random.bits());
    for (const bool url : {false, true}) {
      for (const bool padded : {false, true}) {
        EXPECT_EQ(decode_base64(base64(bytes, url, padded)), bytes) << size << url << padded;
      }
    }
  }
  EXPECT_EQ(decode_base64("+/-_"), decode_base64("-_+/"));
}

TEST(Base64, RefusesEverythingElse) {
  for (const char* bad : {"A", "AAAAA", "A=", "A===", "AA===", "====", "AA=A", "A A=", " AAA",
                          "AAA\n", "AA.A", "AA*A", "AAA\\", "\xC3\xA9zz", "AAAA=AAA", "AA==AAAA"}) {
    EXPECT_FALSE(decode_base64(bad).has_value()) << bad;
  }
  EXPECT_FALSE(decode_base64(std::string_view("AA\0A", 4)).has_value());
}

TEST(Base64Url, HasOneSpellingForTheSameBytes) {
  constexpr std::string_view kAlphabet =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
  test::Random random;
  for (std::size_t size = 0; size <= 70; ++size) {
    std::string bytes;
    for (std::size_t i = 0; i < size; ++i) bytes += static_cast<char>(random.bits());
    const std::string text = base64(bytes, true, false);
    EXPECT_EQ(decode_base64url(text), bytes) << text;
    EXPECT_FALSE(decode_base64url(text + "=").has_value()) << text;
    if (size % 3 == 0) continue;
    EXPECT_FALSE(decode_base64url(base64(bytes, true, true)).has_value()) << "padded " << text;
    for (const char last : kAlphabet) {
      const std::string other = text.substr(0, text.size() - 1) + last;
      const auto decoded = decode_base64url(other);
      // decode_base64() ignores spare bits: several texts decode to the same bytes.
      EXPECT_EQ(decoded == bytes, other == text) << other << " beside " << text;
    }
  }
}

TEST(Base64Url, RefusesTheOtherAlphabetAndEverythingElse) {
  EXPECT_EQ(decode_base64url(""), "");
  EXPECT_EQ(decode_base64url("-_-_"), "\xFB\xFF\xBF");
  for (const char* bad : {"+_-_", "-/-_", "A", "AAAAA", "AA==", "AAA=", "====", "A A_", " AAA",
                          "AAA\n", "AA.A", "AA*A", "AB", "AAB", "\xC3\xA9zz", "AAA."}) {
    EXPECT_FALSE(decode_base64url(bad).has_value()) << bad;
  }
  EXPECT_FALSE(decode_base64url(std::string_view("AA\0A", 4)).has_value());
  EXPECT_FALSE(decode_base64url(std::string_view("A\0", 2)).has_value());
}

}  // namespace
}  // namespace latchkey
