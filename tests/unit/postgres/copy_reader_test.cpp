// Parsing of PostgreSQL's binary COPY format, with hand-made and damaged messages.
#include <gtest/gtest.h>

#include "loader/postgres/connection.h"
#include "tests/unit/support/helpers.h"

namespace latchkey {
namespace {

std::string big_endian(std::uint64_t value, std::size_t bytes) {
  std::string text;
  for (std::size_t i = bytes; i-- > 0;) text += static_cast<char>((value >> (8 * i)) & 0xFF);
  return text;
}
std::string int16(int value) { return big_endian(static_cast<std::uint64_t>(value), 2); }
std::string int32(std::int64_t value) { return big_endian(static_cast<std::uint64_t>(value), 4); }
std::string field(std::string_view text) {
  return int32(static_cast<std::int64_t>(text.size())) + std::string(text);
}

const std::string kSignature("PGCOPY\n\377\r\n\0", 11);
const std::string kHeader = kSignature + int32(0) + int32(0);
const std::string kNull = int32(-1);
const std::string kTrailer = int16(-1);
const std::string kTuple = int16(3) + field("7") + kNull + field("");

using Tuples = std::vector<std::vector<std::optional<std::string>>>;
const Tuples kOneTuple = {{"7", std::nullopt, ""}};

// Each message is in a heap block of its own size.
Tuples read(CopyReader& reader, std::string_view message) {
  const test::Exact exact(test::as_bytes(message));
  Tuples tuples;
  reader.read(as_text(exact.bytes()), [&](const CopyReader::Fields& fields) {
    auto& tuple = tuples.emplace_back();
    for (const auto& f : fields) {
      tuple.push_back(f ? std::optional<std::string>(*f) : std::nullopt);
    }
  });
  return tuples;
}
Tuples read(std::string_view message) {
  CopyReader reader(3);
  return read(reader, message);
}

TEST(CopyReader, ReadsHeaderTuplesAndTrailerHoweverMessagesCutThem) {
  EXPECT_EQ(read(kHeader), Tuples{});
  EXPECT_EQ(read(kHeader + kTuple), kOneTuple);
  EXPECT_EQ(read(kHeader + kTuple + kTrailer), kOneTuple);
  EXPECT_EQ(read(kHeader + kTrailer), Tuples{});
  CopyReader reader(3);
  EXPECT_EQ(read(reader, kHeader), Tuples{});
  EXPECT_EQ(read(reader, kTuple), kOneTuple);
  EXPECT_EQ(read(reader, kTuple + kTuple).size(), 2U);
  EXPECT_FALSE(reader.ended()) << "more may come";
  EXPECT_EQ(read(reader, kTrailer), Tuples{});
  EXPECT_TRUE(reader.ended());
}

TEST(CopyReader, StepsOverAHeaderExtension) {
  EXPECT_EQ(read(kSignature + int32(0) + field("to come") + kTuple), kOneTuple);
}

TEST(CopyReader, KeepsZeroBytesAndLongFields) {
  const std::string odd = std::string("\0\xFF\0", 3) + std::string(100'000, 'x');
  EXPECT_EQ(read(kHeader + int16(3) + field(odd) + field("b") + field("c")),
            (Tuples{{odd, "b", "c"}}));
}

TEST(CopyReader, RefusesAMessageCutAtAnyByte) {
  for (std::size_t size = 0; size < kHeader.size(); ++size) {
    EXPECT_THROW(read(kHeader.substr(0, size)), PgError) << size;
  }
  for (std::size_t size = 1; size < kTuple.size(); ++size) {
    EXPECT_THROW(read(kHeader + kTuple.substr(0, size)), PgError) << size;
    CopyReader reader(3);
    EXPECT_EQ(read(reader, kHeader), Tuples{});
    EXPECT_THROW(read(reader, kTuple.substr(0, size)), PgError) << size;
  }
}

TEST(CopyReader, RefusesWhatIsNotTheFormat) {
  const std::vector<std::pair<const char*, std::string>> bad = {
      {"text format", "7\t\\N\t\n"},
      {"one wrong byte", "PGCOPY\n\376\r\n" + kHeader.substr(10)},
      {"unknown flag", kSignature + int32(1 << 16) + int32(0) + kTuple},
      {"unknown low flag", kSignature + int32(1) + int32(0) + kTuple},
      {"extension too long", kSignature + int32(0) + int32(100)},
      {"extension as long as can be", kSignature + int32(0) + int32(0x7FFFFFFF)},
      {"extension of negative length", kSignature + int32(0) + int32(-1)},
      {"extension of the least length", kSignature + int32(0) + int32(-2147483648LL)},
      {"no fields", kHeader + int16(0)},
      {"a field too few", kHeader + int16(2) + field("a") + field("b")},
      {"a field too many", kHeader + int16(4) + field("a") + field("b") + kNull + kNull},
      {"negative count", kHeader + int16(-2) + field("a") + field("b") + kNull},
      {"least count", kHeader + int16(-32768) + field("a") + field("b") + kNull},
      {"field too long by one", kHeader + int16(3) + kNull + kNull + int32(2) + "x"},
      {"field as long as can be", kHeader + int16(3) + kNull + kNull + int32(0x7FFFFFFF) + "x"},
  };
  for (const auto& [name, message] : bad) EXPECT_THROW(read(message), PgError) << name;
}

// Only -1 is a NULL. If another length were, a damaged expiry would mean "never".
TEST(CopyReader, RefusesOtherNegativeLengths) {
  for (const std::int64_t length : {-2LL, -100LL, -2147483648LL}) {
    EXPECT_THROW(read(kHeader + int16(3) + field("a") + int32(length) + field("b")), PgError)
        << length;
  }
}

TEST(CopyReader, RefusesWhatFollowsTheTrailer) {
  EXPECT_THROW(read(kHeader + kTrailer + kTuple), PgError);
  CopyReader reader(3);
  EXPECT_EQ(read(reader, kHeader + kTrailer), Tuples{});
  EXPECT_THROW(read(reader, kTuple), PgError);
}

}  // namespace
}  // namespace latchkey
