// Values of a row in the wire's formats: text, integers, jsonb, times; and their impossible
// lengths.
#include <gtest/gtest.h>

#include <array>
#include <vector>

#include "loader/postgres/row.h"

namespace latchkey {
namespace {

TEST(RowDecoderTest, ConvertsTextThatIsReadAsItIsStored) {
  RowDecoder decoder({{kFieldId, kBytea, true},
                      {kFieldKey, kBytea},
                      {kFieldSubject, kBytea, true},
                      {kFieldTenant, kBytea, true}},
                     "WIN1252");
  RowDecoder::Texts texts;
  RowView view;
  const auto decode = [&](std::string_view id, std::string_view subject, std::string_view tenant) {
    const std::array<std::optional<std::string_view>, 4> row = {id, "\x81", subject, tenant};
    decoder.decode(row, texts, view);
  };
  const std::string longer(100, '\xE9');
  decode("\xE9t\xE9", "\x80 5", longer);
  EXPECT_EQ(view[kFieldId], "été");
  EXPECT_EQ(view[kFieldKey], "\x81") << "no text";
  EXPECT_EQ(view[kFieldSubject], "€ 5");
  EXPECT_EQ(view[kFieldTenant]->size(), 200U);
  EXPECT_FALSE(view[kFieldUnreadable]);
  decode("1", "2", "a\x81");
  EXPECT_TRUE(view[kFieldUnreadable]);
  EXPECT_EQ(view[kFieldSubject], "2");
  EXPECT_FALSE(view[kFieldTenant]);
  decode("a\x81", "2", "3");
  EXPECT_TRUE(view[kFieldUnreadable]);
  EXPECT_EQ(view[kFieldId],
            "\xFF"
            "a\x81")
      << "rows are told apart by it all the same";
  decode("1", "2", "3");
  EXPECT_FALSE(view[kFieldUnreadable]) << "what an earlier row said is gone";
}

TEST(RowDecoderTest, SpellsOutIntegersOfEachSize) {
  RowDecoder decoder({{kFieldId, kInt8}, {kFieldSubject, kInt4}, {kFieldTenant, kInt2}}, "UTF8");
  RowDecoder::Texts texts;
  const auto decode = [&](std::string_view id, std::string_view subject, std::string_view tenant) {
    const std::array<std::optional<std::string_view>, 3> row = {id, subject, tenant};
    RowView view;
    decoder.decode(row, texts, view);
    return view;
  };
  using namespace std::string_view_literals;
  RowView view = decode("\0\0\0\0\0\0\0\x11"sv, "\0\0\1\0"sv, "\0\7"sv);
  EXPECT_EQ(view[kFieldId], "17");
  EXPECT_EQ(view[kFieldSubject], "256");
  EXPECT_EQ(view[kFieldTenant], "7");
  EXPECT_FALSE(view[kFieldKey]) << "what was not sent is not there";
  view = decode("\x80\0\0\0\0\0\0\0"sv, "\xFF\xFF\xFF\xFF"sv, "\x80\0"sv);
  EXPECT_EQ(view[kFieldId], "-9223372036854775808");
  EXPECT_EQ(view[kFieldSubject], "-1");
  EXPECT_EQ(view[kFieldTenant], "-32768");
  EXPECT_EQ(decode("\x7F\xFF\xFF\xFF\xFF\xFF\xFF\xFF"sv, "\0\0\0\0"sv, "\0\0"sv)[kFieldId],
            "9223372036854775807");
  EXPECT_THROW((void)decode("\0\0\0\x11"sv, "\0\0\1\0"sv, "\0\7"sv), std::runtime_error);
  EXPECT_THROW((void)decode(""sv, "\0\0\1\0"sv, "\0\7"sv), std::runtime_error);
}

TEST(RowDecoderTest, TakesTheTextOutOfJsonb) {
  RowDecoder decoder({{kFieldScopes, kJsonb}, {kFieldMetadata, kJsonb}}, "UTF8");
  RowDecoder::Texts texts;
  RowView view;
  const auto decode = [&](std::optional<std::string_view> scopes,
                          std::optional<std::string_view> metadata) {
    const std::array<std::optional<std::string_view>, 2> row = {scopes, metadata};
    decoder.decode(row, texts, view);
  };
  decode("\1[]", "\1{}");
  EXPECT_EQ(view[kFieldScopes], "[]");
  EXPECT_EQ(view[kFieldMetadata], "{}");
  decode("\1[\"a\"]", std::nullopt);
  EXPECT_EQ(view[kFieldScopes], "[\"a\"]");
  EXPECT_FALSE(view[kFieldMetadata]) << "what an earlier row said is gone";
  EXPECT_THROW(decode("[\"a\"]", std::nullopt), std::runtime_error);
  EXPECT_THROW(decode("\2[]", std::nullopt), std::runtime_error);
  EXPECT_THROW(decode(std::nullopt, ""), std::runtime_error);
}

TEST(RowDecoderTest, TakesNoValueOfAnotherLength) {
  struct {
    WireField wire;
    std::size_t bytes;
    std::string said;
  } const kinds[] = {
      {{kFieldId, kInt8}, 8, "a row's `id` is an integer of an impossible length"},
      {{kFieldSubject, kInt4}, 4, "a row's `subject` is an integer of an impossible length"},
      {{kFieldTenant, kInt2}, 2, "a row's `tenant` is an integer of an impossible length"},
      {{kFieldExpires, kTimestamptz}, 8, "a row's `expires_at` is a time of an impossible length"},
      {{kFieldNotBefore, kTimestamptz},
       8,
       "a row's `not_before` is a time of an impossible length"},
  };
  for (const auto& [wire, bytes, said] : kinds) {
    RowDecoder decoder({wire}, "UTF8");
    for (std::size_t length = 0; length <= 17; ++length) {
      // Each value is in a heap block of its own size, so that a sanitizer detects reads past it.
      const std::vector<char> value(length, '\1');
      const std::array<std::optional<std::string_view>, 1> row = {
          std::string_view(value.data(), value.size())};
      RowDecoder::Texts texts;
      RowView view;
      if (length == bytes) {
        EXPECT_NO_THROW(decoder.decode(row, texts, view)) << said;
        continue;
      }
      try {
        decoder.decode(row, texts, view);
        ADD_FAILURE() << said << ": " << length << " bytes were taken";
      } catch (const std::runtime_error& error) {
        EXPECT_EQ(error.what(), said);
      }
    }
  }
}

TEST(RowDecoderTest, TakesNoRowOfAnotherWidth) {
  RowDecoder decoder({{kFieldId, kText}, {kFieldKey, kText}}, "UTF8");
  RowDecoder::Texts texts;
  RowView view;
  const std::vector<std::optional<std::string_view>> row(3, "x");
  EXPECT_NO_THROW(decoder.decode(std::span(row).first(2), texts, view));
  EXPECT_THROW(decoder.decode(std::span(row).first(0), texts, view), std::runtime_error);
  EXPECT_THROW(decoder.decode(std::span(row).first(1), texts, view), std::runtime_error);
  EXPECT_THROW(decoder.decode(row, texts, view), std::runtime_error);
}

TEST(RowDecoderTest, LeavesTextsAndNullsAlone) {
  RowDecoder decoder({{kFieldId, kText}, {kFieldSubject, kInt8}, {kFieldScopes, kText}}, "UTF8");
  RowDecoder::Texts texts;
  const std::array<std::optional<std::string_view>, 3> row = {"an id", std::nullopt, ""};
  RowView view;
  decoder.decode(row, texts, view);
  EXPECT_EQ(view[kFieldId], "an id");
  EXPECT_FALSE(view[kFieldSubject]);
  EXPECT_EQ(view[kFieldScopes], "");
}

}  // namespace
}  // namespace latchkey
