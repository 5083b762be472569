// Text for a terminal.
#include "tool/text.h"

#include <gtest/gtest.h>

namespace latchkey {
namespace {

TEST(Text, TellsSpansInAtMostTwoUnits) {
  const struct {
    double seconds;
    const char* text;
  } cases[] = {
      {-1, "0ms"},    {0, "0ms"},       {0.0004, "0ms"},     {0.412, "412ms"}, {0.9999, "1.0s"},
      {1, "1.0s"},    {9.99, "9.9s"},   {10, "10s"},         {59.99, "59s"},   {60, "1m"},
      {312, "5m12s"}, {3599, "59m59s"}, {3600, "1h"},        {11520, "3h12m"}, {86399, "23h59m"},
      {86400, "1d"},  {352800, "4d2h"}, {86400 * 99, "99d"},
  };
  for (const auto& c : cases) EXPECT_EQ(span_text(c.seconds), c.text) << c.seconds;
}

TEST(Text, BreaksLinesAtSpacesBeforeColumn80) {
  EXPECT_EQ(wrapped("do       ", "nothing"), "do       nothing\n");
  EXPECT_EQ(wrapped("x: ", ""), "x: \n");
  const std::string word(30, 'w');
  EXPECT_EQ(wrapped("x: ", word + " " + word + " " + word),
            "x: " + word + " " + word + "\n   " + word + "\n");
  // Exactly 80 columns, and one more.
  EXPECT_EQ(wrapped("x: ", std::string(77, 'a')), "x: " + std::string(77, 'a') + "\n");
  EXPECT_EQ(wrapped("x: ", std::string(76, 'a') + " bc"),
            "x: " + std::string(76, 'a') + "\n   bc\n");
  EXPECT_EQ(wrapped("title: ", std::string(71, 'a') + " bc", 2),
            "title: " + std::string(71, 'a') + "\n  bc\n");
  // A word without spaces is not broken.
  const std::string endless(200, 'e');
  EXPECT_EQ(wrapped("x: ", endless + " f"), "x: " + endless + "\n   f\n");
}

TEST(Text, LetsNoControlCharacterThrough) {
  EXPECT_EQ(printable("a\x1b[31m\tb\x7f"), "a?[31m?b?");
  EXPECT_EQ(wrapped("\x01: ", "line\nbreak"), "?: line?break\n");
}

}  // namespace
}  // namespace latchkey
