#include "base/printable.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <random>
#include <sstream>

#include "base/code_points.h"

namespace latchkey {
namespace {

// UTF-8 by RFC 3629, without a check that the code point exists.
std::string utf8(std::uint32_t code) {
  std::string text;
  const auto tail = [&](int shift) { text += static_cast<char>(0x80 | ((code >> shift) & 0x3F)); };
  if (code < 0x80) {
    text += static_cast<char>(code);
  } else if (code < 0x800) {
    text += static_cast<char>(0xC0 | code >> 6);
    tail(0);
  } else if (code < 0x10000) {
    text += static_cast<char>(0xE0 | code >> 12);
    tail(6);
    tail(0);
  } else {
    text += static_cast<char>(0xF0 | code >> 18);
    tail(12);
    tail(6);
    tail(0);
  }
  return text;
}

struct Class {
  const char* what;
  std::uint32_t first, last;
};

const Class kHidden[] = {
    {"C0 controls", 0x00, 0x1F},
    {"DEL", 0x7F, 0x7F},
    {"C1 controls, CSI among them", 0x80, 0x9F},
    {"soft hyphen", 0xAD, 0xAD},
    {"grapheme joiner", 0x34F, 0x34F},
    {"Arabic letter mark", 0x61C, 0x61C},
    {"Hangul fillers", 0x115F, 0x1160},
    {"Mongolian selectors", 0x180B, 0x180F},
    {"zero width space, non-joiner, joiner", 0x200B, 0x200D},
    {"left-to-right and right-to-left mark", 0x200E, 0x200F},
    {"line and paragraph separator", 0x2028, 0x2029},
    {"embeddings and overrides of direction", 0x202A, 0x202E},
    {"word joiner, invisible operators", 0x2060, 0x2064},
    {"isolates of direction", 0x2066, 0x2069},
    {"deprecated format characters", 0x206A, 0x206F},
    {"Hangul filler", 0x3164, 0x3164},
    {"noncharacters", 0xFDD0, 0xFDEF},
    {"variation selectors", 0xFE00, 0xFE0F},
    {"byte order mark", 0xFEFF, 0xFEFF},
    {"halfwidth Hangul filler", 0xFFA0, 0xFFA0},
    {"interlinear annotations", 0xFFF9, 0xFFFB},
    {"noncharacters", 0xFFFE, 0xFFFF},
    {"musical format controls", 0x1D173, 0x1D17A},
    {"tags", 0xE0000, 0xE007F},
    {"variation selectors beyond the first plane", 0xE0100, 0xE01EF},
    {"noncharacters of the last plane", 0x10FFFE, 0x10FFFF},
};

const Class kShown[] = {
    {"ASCII", 0x20, 0x7E},
    {"Latin", 0xA0, 0xAC},
    {"Latin", 0xAE, 0x24F},
    {"Greek", 0x391, 0x3A1},
    {"Cyrillic", 0x400, 0x481},
    {"Hebrew", 0x5D0, 0x5EA},
    {"Arabic", 0x620, 0x64A},
    {"Devanagari", 0x904, 0x939},
    {"Thai", 0xE01, 0xE3A},
    {"typographic", 0x2010, 0x2027},
    {"narrow space", 0x202F, 0x2030},
    {"currency", 0x20A0, 0x20BF},
    {"Kana", 0x3041, 0x3096},
    {"CJK", 0x4E00, 0x9FFF},
    {"Hangul", 0xAC00, 0xD7A3},
    {"replacement character", 0xFFFD, 0xFFFD},
    {"emoji", 0x1F600, 0x1F64F},
    {"CJK, second plane", 0x20000, 0x2A6DF},
};

// Code points that must never reach a terminal, a log or a reader.
bool forbidden(std::uint32_t code) {
  for (const Class& hidden : kHidden) {
    if (code >= hidden.first && code <= hidden.last) return true;
  }
  return code >= 0xD800 && code <= 0xDFFF;
}

// Fails the test unless the text is UTF-8 without forbidden code points; `lines` permits line
// breaks.
void expect_safe(const std::string& text, bool lines = false) {
  for (std::size_t at = 0; at < text.size();) {
    std::uint32_t code = 0;
    const auto* bytes = reinterpret_cast<const unsigned char*>(text.data()) + at;
    const std::size_t length = latchkey_code_point(bytes, text.size() - at, &code);
    ASSERT_NE(length, 0u) << "no UTF-8 at byte " << at;
    ASSERT_EQ(text.substr(at, length), utf8(code));
    ASSERT_TRUE(!forbidden(code) || (lines && code == '\n')) << std::hex << code;
    at += length;
  }
}

TEST(Printable, HidesEachClassOfCodePoints) {
  for (const Class& hidden : kHidden) {
    for (std::uint32_t code = hidden.first; code <= hidden.last; ++code) {
      ASSERT_EQ(printable("a" + utf8(code) + "z"), "a?z") << hidden.what << std::hex << code;
    }
  }
}

TEST(Printable, LeavesWhatPeopleRead) {
  for (const Class& shown : kShown) {
    for (std::uint32_t code = shown.first; code <= shown.last; ++code) {
      ASSERT_EQ(printable(utf8(code)), utf8(code)) << shown.what << std::hex << code;
    }
  }
}

TEST(Printable, TakesNoBytesForTextThatAreNone) {
  const std::pair<const char*, const char*> bytes[] = {
      {"\x9b"
       "31m",
       "?31m"},                                // CSI in one byte
      {"a\x80\x9f z", "a?? z"},                // stray continuation bytes
      {"\xc2", "?"},                           // cut short
      {"\xe2\x80", "??"},                      //
      {"\xf0\x9f\x98", "???"},                 //
      {"\xc0\x8a", "??"},                      // overlong line break
      {"\xe0\x80\x8a", "???"},                 //
      {"\xf0\x80\x80\x8a", "????"},            //
      {"\xed\xa0\x80\xed\xb0\x80", "??????"},  // a pair of surrogates
      {"\xf4\x90\x80\x80", "????"},            // beyond U+10FFFF
      {"\xff\xfe", "??"},                      //
      {"\xc3\x28", "?("},                      // the second byte is a separate letter
      {"\xe2\x28\xa1", "?(?"},                 //
  };
  for (const auto& [from, to] : bytes) EXPECT_EQ(printable(from), to);
}

TEST(Printable, DecidesAboutEachCodePointAlike) {
  for (std::uint32_t code = 0; code <= 0x10FFFF; ++code) {
    const std::string text = utf8(code);
    if (code >= 0xD800 && code <= 0xDFFF) {
      ASSERT_EQ(printable(text), "???");
      continue;
    }
    const std::string shown = printable(text);
    ASSERT_TRUE(shown == text || shown == "?") << std::hex << code;
    ASSERT_TRUE(!forbidden(code) || shown == "?") << std::hex << code;
    // RFC 8259: a parser reads the escaped text back.
    if (code < 0x20 || code == '"' || code == '\\') continue;
    const std::string json = printable_json("\"" + text + "\"");
    ASSERT_EQ(nlohmann::json::parse(json), text) << std::hex << code;
    ASSERT_EQ(json == "\"" + text + "\"", shown == text) << std::hex << code;
  }
}

// Random bytes, many of which begin or end forbidden code points.
std::string random_text(std::mt19937_64& random) {
  static constexpr unsigned char kLikely[] = {0x1B, 0x9B, 0xC2, 0xE2, 0x80, 0x8E, 0xAA, 0xAE,
                                              0xEF, 0xBB, 0xBF, 0xF3, 0xA0, 0xED, 0x7F, '\n'};
  std::string text;
  for (std::size_t left = random() % 64; left > 0; --left) {
    switch (random() % 4) {
      case 0: text += static_cast<char>(kLikely[random() % sizeof kLikely]); break;
      case 1: text += static_cast<char>(random()); break;
      case 2: text += static_cast<char>(0x20 + random() % 0x5F); break;
      default: text += utf8(static_cast<std::uint32_t>(random() % 0x110000));
    }
  }
  return text;
}

TEST(Printable, HoldsForAnyBytes) {
  const std::uint64_t seed = std::random_device()();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937_64 random(seed);
  for (int i = 0; i < 20'000; ++i) {
    const std::string text = random_text(random);
    const std::string shown = printable(text);
    ASSERT_NO_FATAL_FAILURE(expect_safe(shown));
    ASSERT_LE(shown.size(), text.size());
    ASSERT_EQ(printable(shown), shown);
    ASSERT_NO_FATAL_FAILURE(expect_safe(printable_json(text), true));
  }
}

TEST(Printable, GuardsAStreamHoweverTheTextIsCut) {
  const std::uint64_t seed = std::random_device()();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937_64 random(seed);
  for (int i = 0; i < 2'000; ++i) {
    const std::string text = random_text(random) + random_text(random);
    std::ostringstream below;
    {
      std::ostream out(below.rdbuf());
      const PrintableStream guard(out);
      for (std::size_t at = 0; at < text.size();) {
        const std::size_t length = 1 + random() % 5;
        if (random() % 4 == 0) {
          out.put(text[at++]);
        } else {
          out << text.substr(at, length);
          at += length;
        }
        if (random() % 2 == 0) out.flush();
        ASSERT_NO_FATAL_FAILURE(expect_safe(below.str(), true));
      }
    }
    std::string lines;  // line by line the same as in one piece
    std::istringstream in(text);
    for (std::string line; std::getline(in, line);) lines += printable(line) + "\n";
    if (!text.empty() && text.back() != '\n') lines.pop_back();
    ASSERT_EQ(below.str(), lines);
  }
}

TEST(Printable, GuardsAStreamOfJson) {
  std::ostringstream below;
  std::ostream out(below.rdbuf());
  {
    PrintableStream guard(out);
    guard.set_kind(PrintableStream::Kind::kJson);
    out << "{\"a\":\"\xe2\x80" << std::flush << "\xae\xc2\x9b\x7f\xf3\xa0\x80\x81\xc3\xa9\"}\n";
  }
  EXPECT_EQ(below.str(), "{\"a\":\"\\u202e\\u009b\\u007f\\udb40\\udc01\xc3\xa9\"}\n");
  out << "\x1b";  // the stream has its own buffer again
  EXPECT_TRUE(below.str().ends_with("\x1b"));
}

TEST(Printable, StreamsPassManyBytesOn) {
  std::ostringstream below;
  {
    std::ostream out(below.rdbuf());
    const PrintableStream guard(out);
    for (int i = 0; i < 10'000; ++i) out << "\xe6\xbc\xa2 " << i << "\n";
  }
  EXPECT_EQ(below.str(), printable_json(below.str()));
  EXPECT_TRUE(below.str().ends_with("\xe6\xbc\xa2 9999\n"));
}

}  // namespace
}  // namespace latchkey
