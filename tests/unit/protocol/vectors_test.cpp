// The table of vectors, both ways: bytes -> meaning -> the same bytes. Each good vector also
// yields bad ones: cut at any byte it is truncated, with a byte more it is trailing. All bytes are
// in heap blocks of exactly their size, so that AddressSanitizer detects reads past them.
#include "tests/unit/support/meaning.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cctype>
#include <set>

#include "base/wire_names.h"
#include "protocol/codec.h"
#include "tests/unit/support/helpers.h"
#include "tests/unit/support/vectors.h"

namespace latchkey {
namespace {

using test::Exact;
using test::Field;
using test::is_request;
using test::kClaims;
using test::kTypes;
using test::Meaning;
using test::read_body;
using test::read_frame;
using test::test_name;
using test::Vector;

std::vector<Vector> vectors(bool good) {
  return test::vectors_that([good](const Vector& vector) { return vector.good() == good; });
}

latchkey_type type_of(const Vector& vector) {
  return kTypes.at(Meaning(vector.meaning).one("type"));
}
// Types with a text that ends with the frame.
bool is_text(latchkey_type type) {
  return type == LATCHKEY_STATUS_REPLY || type == LATCHKEY_WHY_REPLY;
}

class GoodVector : public testing::TestWithParam<Vector> {};
INSTANTIATE_TEST_SUITE_P(Wire, GoodVector, testing::ValuesIn(vectors(true)), test_name);

TEST_P(GoodVector, MeansWhatTheTableSays) {
  std::vector<Field> meaning;
  const DecodeError error = read_frame(Exact(GetParam().frame), is_request(GetParam()), meaning);
  EXPECT_EQ(error, std::nullopt) << error_name(*error);
  EXPECT_EQ(meaning, GetParam().meaning);
}

TEST_P(GoodVector, IsWrittenWithTheSameBytes) {
  if (GetParam().decode_only) return;
  OutBuffer out;
  test::write_frame(out, GetParam().meaning);
  EXPECT_THAT(out.bytes(), testing::ElementsAreArray(GetParam().frame));
}

TEST_P(GoodVector, IsTruncatedWhereverItsBodyIsCut) {
  const latchkey_type type = type_of(GetParam());
  if (is_text(type)) return;
  const Bytes body = Bytes(GetParam().frame).subspan(LATCHKEY_HEADER_BYTES);
  for (std::size_t length = 0; length < body.size(); ++length) {
    std::vector<Field> meaning;
    const DecodeError error = read_body(type, Exact(body.first(length)).bytes(), meaning);
    ASSERT_EQ(error, LATCHKEY_TRUNCATED) << length << " of " << body.size() << " bytes";
  }
}

TEST_P(GoodVector, IsTrailingWithOneByteMore) {
  const latchkey_type type = type_of(GetParam());
  if (is_text(type)) return;
  std::vector<std::uint8_t> longer = GetParam().frame;
  longer.push_back(0);
  std::vector<Field> meaning;
  EXPECT_EQ(read_body(type, Exact(longer).body(), meaning), LATCHKEY_TRAILING);
}

TEST_P(GoodVector, IsNoFrameBeforeItsLastByte) {
  const Bytes frame = GetParam().frame;
  for (std::size_t length = 0; length <= frame.size(); ++length) {
    FrameBuffer buffer(frame.size());  // accepts no longer frame
    std::ranges::copy(frame.first(length), buffer.writable().begin());
    buffer.commit(length);
    ASSERT_EQ(buffer.next_frame().has_value(), length == frame.size()) << length;
    ASSERT_EQ(buffer.error(), std::nullopt) << length;
  }
}

class BadVector : public testing::TestWithParam<Vector> {};
INSTANTIATE_TEST_SUITE_P(Wire, BadVector, testing::ValuesIn(vectors(false)), test_name);

TEST_P(BadVector, IsRefusedByItsName) {
  std::vector<Field> meaning;
  const DecodeError error =
      read_frame(Exact(GetParam().frame), GetParam().reader == "daemon", meaning);
  ASSERT_TRUE(error.has_value());
  EXPECT_EQ(error_name(*error), GetParam().error);
}

TEST(Vectors, CoverEveryTypeVerdictClaimAndDecodingError) {
  std::set<std::string> seen;
  for (const Vector& vector : vectors(true)) {
    for (const auto& [name, value] : vector.meaning) {
      seen.insert(name);
      seen.insert(value.substr(0, value.find(' ')));
    }
  }
  for (const Vector& vector : vectors(false)) seen.insert("refused " + vector.error);
  for (const auto& [name, type] : kTypes) EXPECT_TRUE(seen.contains(name)) << name;
  for (const auto& [name, tag] : kClaims) EXPECT_TRUE(seen.contains(name)) << name;
  for (int i = 0; i < LATCHKEY_VERDICTS; ++i) {
    EXPECT_TRUE(seen.contains(verdict_name(static_cast<latchkey_verdict>(i)))) << i;
  }
  for (int i = LATCHKEY_BAD_VERSION; i < LATCHKEY_ERRORS_END; ++i) {
    const std::string name = error_name(static_cast<latchkey_error>(i));
    EXPECT_TRUE(seen.contains(name)) << name;
    EXPECT_TRUE(i > LATCHKEY_BAD_TIMEOUT || seen.contains("refused " + name)) << name;
  }
}

}  // namespace
}  // namespace latchkey
