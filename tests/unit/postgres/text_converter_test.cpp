#include "loader/postgres/text_converter.h"

#include <gtest/gtest.h>

#include <string>

namespace latchkey {
namespace {

// tests/system/test_encodings.py compares glibc's conversions with PostgreSQL's.
TEST(TextConverterTest, ConvertsWhatTheEncodingHas) {
  EXPECT_EQ(TextConverter("WIN1252").to_utf8("\x80\xE9"), "€é");
  EXPECT_EQ(TextConverter("LATIN9").to_utf8("\xA4"), "€");
  EXPECT_EQ(TextConverter("EUC_JP").to_utf8("\xC6\xFC\xCB\xDC"), "日本");
  EXPECT_EQ(TextConverter("KOI8R").to_utf8("\xCB\xCC\xC0\xDE"), "ключ");
  EXPECT_EQ(TextConverter("SQL_ASCII").to_utf8("é"), "é");
}

TEST(TextConverterTest, ConvertsNothingElse) {
  EXPECT_FALSE(TextConverter("WIN1252").to_utf8("\x81"));
  EXPECT_FALSE(TextConverter("WIN1252").to_utf8("all but\x8D"));
  EXPECT_FALSE(TextConverter("EUC_JP").to_utf8("\xC6")) << "half a character";
  EXPECT_FALSE(TextConverter("EUC_JP").to_utf8("\xC6x"));
  EXPECT_FALSE(TextConverter("SQL_ASCII").to_utf8("\xE9"));
  EXPECT_FALSE(TextConverter("SQL_ASCII").to_utf8("\xED\xA0\x80")) << "a surrogate";
  EXPECT_FALSE(TextConverter("SQL_ASCII").to_utf8("\xF4\x90\x80\x80")) << "beyond Unicode";
  EXPECT_FALSE(TextConverter("SQL_ASCII").to_utf8("\xC0\xAF")) << "longer than it need be";
}

TEST(TextConverterTest, TakesAsciiInAnyEncoding) {
  for (const char* encoding : {"MULE_INTERNAL", "NO_SUCH", "", "WIN1252", "EUC_JIS_2004"}) {
    TextConverter converter(encoding);
    EXPECT_EQ(converter.to_utf8("plain ~\\"), "plain ~\\") << encoding;
    EXPECT_EQ(converter.to_utf8(""), "") << encoding;
  }
  EXPECT_FALSE(TextConverter("MULE_INTERNAL").to_utf8("\x81\xE9"));
}

TEST(TextConverterTest, BeginsAnewWithEachText) {
  TextConverter converter("EUC_JP");
  EXPECT_FALSE(converter.to_utf8("\xC6"));
  EXPECT_EQ(converter.to_utf8("\xC6\xFC"), "日");
  TextConverter vietnamese("WIN1258");  // an encoding with combining characters
  EXPECT_EQ(vietnamese.to_utf8("\xE9"), "é");
  EXPECT_EQ(vietnamese.to_utf8("e"), "e");
}

TEST(TextConverterTest, MarksWhatItCannotShow) {
  TextConverter converter("WIN1252");
  EXPECT_EQ(converter.to_utf8_or_marks("a\x81\x8Dz\xE9\x81"), "a??zé?");
  EXPECT_EQ(TextConverter("NO_SUCH").to_utf8_or_marks("a\xE9z"), "a?z");
}

TEST(TextConverterTest, KeepsIdsApart) {
  TextConverter converter("WIN1252");
  EXPECT_EQ(converter.id("\xE9"), "é");
  EXPECT_NE(converter.id("\xC3\x81"), converter.id("\xC1")) << "Á as UTF-8, and Á";
  EXPECT_NE(converter.id("\x81"), converter.id("\x8D"));
}

TEST(TextConverterTest, LeavesToPostgresWhatItCanAlwaysConvert) {
  EXPECT_FALSE(is_read_as_stored("UTF8"));
  EXPECT_FALSE(is_read_as_stored("LATIN1"));
  EXPECT_TRUE(is_read_as_stored("SQL_ASCII"));
  EXPECT_TRUE(is_read_as_stored("WIN1252"));
}

}  // namespace
}  // namespace latchkey
