// A stream gives the same frames for all cuts; a bad header is final; released bytes are wiped.
#include "protocol/frame_buffer.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "protocol/codec.h"
#include "tests/unit/support/helpers.h"

namespace latchkey {
namespace {

using test::Random;

constexpr std::size_t kFrameMax = 300;

struct Seen {
  std::uint8_t type;
  std::uint64_t request_id;
  std::vector<std::uint8_t> body;
  bool operator==(const Seen&) const = default;
};

// A frame of any type; the buffer ignores bodies.
std::vector<std::uint8_t> frame(std::uint64_t request_id, std::size_t length,
                                std::uint8_t fill = 0xA5) {
  std::vector<std::uint8_t> bytes(length, fill);
  bytes[0] = LATCHKEY_VERSION;
  bytes[1] = LATCHKEY_VERIFY;
  store_le<std::uint16_t>(bytes.data() + 2, 0);
  store_le<std::uint32_t>(bytes.data() + 4, static_cast<std::uint32_t>(length));
  store_le<std::uint64_t>(bytes.data() + 8, request_id);
  return bytes;
}

void append(std::vector<std::uint8_t>& stream, const std::vector<std::uint8_t>& bytes) {
  stream.insert(stream.end(), bytes.begin(), bytes.end());
}

std::size_t receive(FrameBuffer& buffer, Bytes bytes) {
  const auto room = buffer.writable();
  const std::size_t count = std::min(room.size(), bytes.size());
  std::ranges::copy(bytes.first(count), room.begin());
  buffer.commit(count);
  return count;
}

void drain(FrameBuffer& buffer, std::vector<Seen>& seen) {
  while (const auto next = buffer.next_frame()) {
    seen.push_back(
        {next->header.type, next->header.request_id, {next->body.begin(), next->body.end()}});
  }
}

// Reads at most `chunk()` bytes at a time, like a connection.
template <typename Chunk>
std::vector<Seen> read_stream(Bytes stream, Chunk chunk) {
  FrameBuffer buffer(kFrameMax);
  std::vector<Seen> seen;
  while (!stream.empty()) {
    const std::size_t read =
        receive(buffer, stream.first(std::min<std::size_t>(stream.size(), chunk())));
    EXPECT_GT(read, 0U) << "writable() must never be empty after release()";
    if (read == 0) break;
    stream = stream.subspan(read);
    drain(buffer, seen);
    buffer.release();
  }
  EXPECT_EQ(buffer.error(), std::nullopt);
  EXPECT_FALSE(buffer.mid_frame());
  return seen;
}

std::vector<std::uint8_t> sample_stream() {
  std::vector<std::uint8_t> stream;
  std::uint64_t id = 0;
  for (const std::size_t length : {16UL, 17UL, kFrameMax, 16UL, 16UL, kFrameMax - 1, 40UL}) {
    ++id;
    append(stream, frame(id, length, static_cast<std::uint8_t>(id)));
  }
  return stream;
}

TEST(FrameBuffer, CutsTheSameFramesFromAStreamSplitAtAnyByte) {
  const auto stream = sample_stream();
  const auto whole = read_stream(stream, [] { return kFrameMax; });
  ASSERT_EQ(whole.size(), 7U);
  for (std::size_t cut = 1; cut < stream.size(); ++cut) {
    std::size_t chunks = 0;
    EXPECT_EQ(read_stream(stream, [&] { return chunks++ == 0 ? cut : stream.size(); }), whole)
        << "cut at " << cut;
  }
}

TEST(FrameBuffer, CutsTheSameFramesFromSingleBytesAndRandomPieces) {
  const auto stream = sample_stream();
  const auto whole = read_stream(stream, [] { return kFrameMax; });
  EXPECT_EQ(read_stream(stream, [] { return 1; }), whole);
  Random random;
  for (int round = 0; round < 500; ++round) {
    const std::size_t most = 1 + random.below(kFrameMax);
    ASSERT_EQ(read_stream(stream, [&] { return 1 + random.below(most); }), whole) << round;
  }
}

TEST(FrameBuffer, HandsOutAllTheFramesOfOneRead) {
  FrameBuffer buffer(LATCHKEY_REQUEST_BYTES_MAX);
  std::vector<std::uint8_t> stream;
  for (std::uint64_t id = 0; id < LATCHKEY_REQUEST_BYTES_MAX / LATCHKEY_HEADER_BYTES; ++id) {
    append(stream, frame(id, LATCHKEY_HEADER_BYTES));
  }
  ASSERT_EQ(receive(buffer, stream), stream.size());
  std::vector<Seen> seen;
  drain(buffer, seen);
  ASSERT_EQ(seen.size(), 4096U);
  EXPECT_EQ(seen.back().request_id, 4095U);
}

TEST(FrameBuffer, TakesTheLongestFrameBehindAnUnfinishedOne) {
  FrameBuffer buffer(kFrameMax);
  auto stream = frame(1, 20);
  append(stream, frame(2, kFrameMax));
  std::size_t at = receive(buffer, Bytes(stream).first(30));
  std::vector<Seen> seen;
  drain(buffer, seen);
  EXPECT_TRUE(buffer.mid_frame());
  buffer.release();
  at += receive(buffer, Bytes(stream).subspan(at));
  EXPECT_EQ(at, stream.size());
  drain(buffer, seen);
  ASSERT_EQ(seen.size(), 2U);
  EXPECT_EQ(seen[1].body.size(), kFrameMax - LATCHKEY_HEADER_BYTES);
  EXPECT_FALSE(buffer.mid_frame());
}

TEST(FrameBuffer, KeepsFramesInPlaceUntilTheyAreReleased) {
  FrameBuffer buffer(kFrameMax);
  auto stream = frame(1, 32, 0x11);
  append(stream, frame(2, 48, 0x22));
  receive(buffer, stream);
  const auto first = buffer.next_frame();
  const auto second = buffer.next_frame();
  EXPECT_FALSE(buffer.next_frame().has_value());
  EXPECT_TRUE(std::ranges::all_of(first->body, [](auto byte) { return byte == 0x11; }));
  EXPECT_TRUE(std::ranges::all_of(second->body, [](auto byte) { return byte == 0x22; }));
}

struct BadHeader {
  std::size_t offset;
  std::uint8_t value;
  latchkey_error error;
  std::uint64_t echoed_id;
};

TEST(FrameBuffer, GivesNothingMoreAfterAnUnacceptableHeader) {
  const BadHeader cases[] = {
      {0, 2, LATCHKEY_BAD_VERSION, 0},  // another version may place its id elsewhere
      {2, 1, LATCHKEY_BAD_RESERVED, 7}, {3, 1, LATCHKEY_BAD_RESERVED, 7},
      {4, 15, LATCHKEY_BAD_LENGTH, 7},  {4, 0, LATCHKEY_BAD_LENGTH, 7},
      {5, 2, LATCHKEY_BAD_LENGTH, 7},   {7, 255, LATCHKEY_BAD_LENGTH, 7},
  };
  for (const BadHeader& c : cases) {
    SCOPED_TRACE(testing::Message() << "byte " << c.offset << " = " << int{c.value});
    auto bad = frame(7, 16);
    bad[c.offset] = c.value;
    auto stream = frame(1, 20);
    append(stream, bad);
    append(stream, frame(2, 20));

    FrameBuffer buffer(kFrameMax);
    receive(buffer, stream);
    std::vector<Seen> seen;
    drain(buffer, seen);
    EXPECT_EQ(seen.size(), 1U) << "frames before the bad one count";
    EXPECT_EQ(buffer.error(), c.error);
    EXPECT_EQ(buffer.error_request_id(), c.echoed_id);

    buffer.release();
    receive(buffer, frame(3, 16));
    EXPECT_FALSE(buffer.next_frame().has_value());
    EXPECT_EQ(buffer.error(), c.error);
  }
}

TEST(FrameBuffer, JudgesAHeaderBeforeItsBodyArrives) {
  FrameBuffer buffer(kFrameMax);
  receive(buffer, Bytes(frame(1, kFrameMax + 1)).first(LATCHKEY_HEADER_BYTES));
  EXPECT_FALSE(buffer.next_frame().has_value());
  EXPECT_EQ(buffer.error(), LATCHKEY_BAD_LENGTH);
}

// The buffer's start, from writable() of the empty buffer: its memory stays the same later on, and
// reading it is legal, because all of it has been written once.
TEST(FrameBuffer, WipesWhatIsReleasedWhereverTheStreamWasCut) {
  constexpr std::uint8_t kSecret = 0xEE;
  auto stream = frame(1, 50, kSecret);
  append(stream, frame(2, 120, kSecret));
  for (std::size_t cut = 1; cut <= stream.size(); ++cut) {
    FrameBuffer buffer(kFrameMax);
    const std::span<std::uint8_t> memory = buffer.writable();
    std::ranges::fill(memory, std::uint8_t{0});
    receive(buffer, Bytes(stream).first(cut));
    std::vector<Seen> seen;
    drain(buffer, seen);
    buffer.release();
    const std::size_t kept = memory.size() - buffer.writable().size();
    const std::size_t parsed = cut < 50 ? 0 : cut < 170 ? 50 : 170;
    ASSERT_EQ(kept, cut - parsed);
    ASSERT_TRUE(std::ranges::equal(memory.first(kept), Bytes(stream).subspan(parsed, kept)));
    ASSERT_EQ(std::ranges::count(memory.subspan(kept), kSecret), 0)
        << "left behind after a cut at " << cut;
  }
}

}  // namespace
}  // namespace latchkey
