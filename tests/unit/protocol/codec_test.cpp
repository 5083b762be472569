// The codec at its limits, and with random bytes. tests/vectors/wire.txt has the plain cases.
#include "protocol/codec.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "base/wire_names.h"
#include "tests/reference/client_codec.h"
#include "tests/unit/support/helpers.h"

namespace latchkey {
namespace {

using test::Exact;
using test::Random;

// A hand-written verify body: decoding must also handle bodies that encode_verify() refuses to
// write.
struct RawVerify {
  std::uint16_t flags = 0;
  std::string source;
  std::vector<std::string> all_scopes;
  std::vector<std::string> any_scopes;
  std::vector<std::string> keys = {"k"};

  [[nodiscard]] DecodeError decode() const {
    VerifyRequest request;
    return decode_verify(Exact(bytes()).bytes(), request);
  }
  [[nodiscard]] std::vector<std::uint8_t> bytes() const {
    std::vector<std::uint8_t> body(LATCHKEY_VERIFY_FIXED_BYTES);
    store_le(body.data(), flags);
    body[2] = static_cast<std::uint8_t>(source.size());
    body[3] = static_cast<std::uint8_t>(all_scopes.size());
    body[4] = static_cast<std::uint8_t>(any_scopes.size());
    store_le(body.data() + 6, static_cast<std::uint16_t>(keys.size()));
    body.insert(body.end(), source.begin(), source.end());
    for (const auto* list : {&all_scopes, &any_scopes}) {
      for (const std::string& scope : *list) {
        body.push_back(static_cast<std::uint8_t>(scope.size()));
        body.insert(body.end(), scope.begin(), scope.end());
      }
    }
    for (const std::string& key : keys) {
      body.push_back(static_cast<std::uint8_t>(key.size() & 0xFF));
      body.push_back(static_cast<std::uint8_t>(key.size() >> 8));
      body.insert(body.end(), key.begin(), key.end());
    }
    return body;
  }
};

using Strings = std::vector<std::string>;

TEST(DecodeVerify, CountsKeysAndScopesUpToTheirLimits) {
  const struct {
    std::size_t keys, all_scopes, any_scopes;
    DecodeError error;
  } cases[] = {
      {1, 0, 0, {}},
      {256, 32, 32, {}},
      {0, 0, 0, LATCHKEY_BAD_COUNT},
      {257, 0, 0, LATCHKEY_BAD_COUNT},
      {1, 33, 0, LATCHKEY_BAD_COUNT},
      {1, 0, 33, LATCHKEY_BAD_COUNT},
      {1, 255, 255, LATCHKEY_BAD_COUNT},
      {65535, 0, 0, LATCHKEY_BAD_COUNT},
  };
  for (const auto& c : cases) {
    RawVerify raw;
    raw.keys = Strings(c.keys, "k");
    raw.all_scopes = Strings(c.all_scopes, "s");
    raw.any_scopes = Strings(c.any_scopes, "s");
    EXPECT_EQ(raw.decode(), c.error) << c.keys << ' ' << c.all_scopes << ' ' << c.any_scopes;
  }
}

TEST(DecodeVerify, LeavesKeysOfAnyLengthToTheVerdict) {
  for (const std::size_t length : {0U, 1U, 4095U, 4096U, 4097U, 65507U, 65535U}) {
    RawVerify raw;
    raw.keys = {std::string(length, 'x'), "next"};
    const std::vector<std::uint8_t> body = raw.bytes();
    VerifyRequest request;
    ASSERT_EQ(decode_verify(body, request), std::nullopt) << length;
    ASSERT_EQ(request.keys.size(), 2U);
    auto key = request.keys.begin();
    EXPECT_EQ((*key).size(), length);
    EXPECT_EQ(*++key, "next");
  }
}

TEST(DecodeVerify, PermitsInScopesWhatIsNeitherSpaceNorControl) {
  for (int byte = 0; byte < 256; ++byte) {
    RawVerify raw;
    raw.any_scopes = {"read", {'a', static_cast<char>(byte), 'b'}};
    const DecodeError expected =
        byte <= 0x20 || byte == 0x7F ? DecodeError(LATCHKEY_BAD_SCOPE) : std::nullopt;
    EXPECT_EQ(raw.decode(), expected) << byte;
  }
  RawVerify longest;
  longest.all_scopes = Strings(LATCHKEY_SCOPES_MAX, std::string(255, 's'));
  longest.any_scopes = longest.all_scopes;
  EXPECT_EQ(longest.decode(), std::nullopt);
}

TEST(DecodeVerify, PermitsInSourceNamesOnlyTheListedCharacters) {
  const std::string permitted = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-.";
  for (int byte = 0; byte < 256; ++byte) {
    RawVerify raw;
    raw.source = {static_cast<char>(byte)};
    const bool good = permitted.find(static_cast<char>(byte)) != std::string::npos;
    EXPECT_EQ(raw.decode(), good ? std::nullopt : DecodeError(LATCHKEY_BAD_SOURCE)) << byte;
  }
  RawVerify raw;
  raw.source = std::string(63, 'a');
  EXPECT_EQ(raw.decode(), std::nullopt);
  raw.source += 'a';
  EXPECT_EQ(raw.decode(), LATCHKEY_BAD_SOURCE);
}

TEST(EncodeVerify, FillsARequestToItsLastByte) {
  const VerifyTerms terms;
  const std::string key(LATCHKEY_REQUEST_BYTES_MAX - verify_overhead(terms) - 2, 'k');
  const std::string_view keys[] = {key};
  OutBuffer out;
  encode_verify(out, 1, terms, keys);
  ASSERT_EQ(out.size(), std::size_t{LATCHKEY_REQUEST_BYTES_MAX});

  FrameBuffer buffer(LATCHKEY_REQUEST_BYTES_MAX);
  std::ranges::copy(out.bytes(), buffer.writable().begin());
  buffer.commit(out.size());
  const auto frame = buffer.next_frame();
  VerifyRequest request;
  ASSERT_TRUE(frame.has_value());
  EXPECT_EQ(decode_verify(frame->body, request), std::nullopt);
  EXPECT_EQ(*request.keys.begin(), key);
}

TEST(VerifiedWriter, FillsTheLargestReplyToItsLastByte) {
  std::vector<std::uint8_t> claim(LATCHKEY_CLAIMS_BYTES_MAX);
  put_claim(claim.data(), LATCHKEY_CLAIM_METADATA,
            std::string(claim.size() - LATCHKEY_CLAIM_BYTES, 'm'));
  const Bytes parts[] = {claim};
  OutBuffer out;
  VerifiedWriter writer(out, 1, LATCHKEY_BATCH_KEYS_MAX);
  for (int i = 0; i < LATCHKEY_BATCH_KEYS_MAX; ++i) writer.add(LATCHKEY_VALID, 0, 0, parts);
  writer.finish();
  ASSERT_EQ(out.size(), std::size_t{LATCHKEY_REPLY_BYTES_MAX});

  std::vector<DecodedAnswer> answers;
  ASSERT_EQ(decode_verified(out.bytes().subspan(LATCHKEY_HEADER_BYTES), answers), std::nullopt);
  ASSERT_EQ(answers.size(), std::size_t{LATCHKEY_BATCH_KEYS_MAX});
  EXPECT_EQ(answers.back().claims.metadata.size(), claim.size() - LATCHKEY_CLAIM_BYTES);
}

TEST(DecodeVerified, StepsOverEveryClaimItDoesNotKnow) {
  for (int tag = 0; tag < 256; ++tag) {
    if (tag >= LATCHKEY_CLAIM_SOURCE && tag <= LATCHKEY_CLAIM_METADATA) continue;
    std::uint8_t strange[LATCHKEY_CLAIM_BYTES + 300] = {static_cast<std::uint8_t>(tag), 300 & 0xFF,
                                                        300 >> 8};
    std::uint8_t subject[LATCHKEY_CLAIM_BYTES + 2];
    put_claim(subject, LATCHKEY_CLAIM_SUBJECT, "42");
    const Bytes parts[] = {strange, subject, strange};
    OutBuffer out;
    VerifiedWriter writer(out, 1, 1);
    writer.add(LATCHKEY_VALID, LATCHKEY_FRESH, 0, parts);
    writer.finish();
    std::vector<DecodedAnswer> answers;
    ASSERT_EQ(decode_verified(out.bytes().subspan(LATCHKEY_HEADER_BYTES), answers), std::nullopt);
    EXPECT_EQ(answers.at(0).claims.subject, "42") << tag;
  }
}

TEST(DecodeVerified, ForgetsTheAnswersOfTheReplyBefore) {
  OutBuffer out;
  VerifiedWriter writer(out, 1, 1);
  writer.add(LATCHKEY_UNKNOWN, 0, 0, {});
  writer.finish();
  std::vector<DecodedAnswer> answers(7);
  ASSERT_EQ(decode_verified(out.bytes().subspan(LATCHKEY_HEADER_BYTES), answers), std::nullopt);
  EXPECT_EQ(answers.size(), 1U);
}

TEST(EncodeError, CutsALongText) {
  OutBuffer out;
  encode_error(out, 1, LATCHKEY_BAD_SCOPE, std::string(600, 'e'));
  latchkey_error code{};
  std::string_view text;
  ASSERT_EQ(decode_error(out.bytes().subspan(LATCHKEY_HEADER_BYTES), code, text), std::nullopt);
  EXPECT_EQ(code, LATCHKEY_BAD_SCOPE);
  EXPECT_EQ(text, std::string(LATCHKEY_ERROR_TEXT_BYTES_MAX, 'e'));
}

// The text explains a code that only a later version knows.
TEST(DecodeError, TakesCodesOfLaterVersions) {
  for (const unsigned code_sent : {0U, unsigned{LATCHKEY_ERRORS_END}, 31U, 32U, 999U, 65535U}) {
    std::uint8_t body[4 + 3] = {static_cast<std::uint8_t>(code_sent & 0xFF),
                                static_cast<std::uint8_t>(code_sent >> 8),
                                3,
                                0,
                                'n',
                                'e',
                                'w'};
    latchkey_error code{};
    std::string_view text;
    ASSERT_EQ(decode_error(body, code, text), std::nullopt) << code_sent;
    EXPECT_STREQ(error_name(code), "unknown_error") << code_sent;
    EXPECT_EQ(text, "new");
  }
}

TEST(OutBuffer, KeepsWhatItHoldsWhileItGrows) {
  OutBuffer out;
  std::vector<std::uint8_t> expected;
  Random random;
  for (int i = 0; i < 2000; ++i) {
    std::vector<std::uint8_t> piece(random.below(40), static_cast<std::uint8_t>(i));
    out.append(piece);
    expected.insert(expected.end(), piece.begin(), piece.end());
  }
  EXPECT_TRUE(std::ranges::equal(out.bytes(), expected));
}

// ---- damaged bytes

void decode_all(Bytes body) {
  VerifyRequest request;
  if (!decode_verify(body, request)) {
    std::size_t bytes = 0;  // reads every item to its end
    for (const auto* scopes : {&request.all_scopes, &request.any_scopes}) {
      for (const auto scope : *scopes) bytes += scope.size() + 1;
    }
    for (const auto key : request.keys) bytes += key.size() + 2;
    ASSERT_EQ(bytes + LATCHKEY_VERIFY_FIXED_BYTES + request.source.size(), body.size());
  }
  std::vector<DecodedAnswer> answers;
  std::uint32_t timeout_ms;
  std::uint64_t waited_us;
  latchkey_error code;
  std::string_view text;
  (void)decode_verified(body, answers);
  (void)decode_sync(body, timeout_ms);
  (void)decode_synced(body, waited_us);
  (void)decode_error(body, code, text);
}

TEST(Codec, SurvivesRandomBytes) {
  Random random;
  for (int round = 0; round < 50'000; ++round) {
    std::vector<std::uint8_t> body(random.below(80));
    for (auto& byte : body) byte = static_cast<std::uint8_t>(random.bits());
    decode_all(Exact(body).bytes());
  }
}

// Random bytes seldom pass the first field, so this changes a few bytes of good messages.
TEST(Codec, SurvivesDamagedMessages) {
  RawVerify raw{3, "api_keys", {"read", "write"}, {"admin"}, {"first", "", "third"}};
  std::uint8_t claims[256];
  std::uint8_t* end = put_claim(claims, LATCHKEY_CLAIM_SUBJECT, "42");
  end = put_claim(end, LATCHKEY_CLAIM_EXPIRES, std::int64_t{1798761600});
  const Bytes parts[] = {{claims, end}};
  OutBuffer out;
  VerifiedWriter writer(out, 1, 3);
  for (int i = 0; i < 3; ++i) writer.add(LATCHKEY_VALID, LATCHKEY_FRESH, 5, parts);
  writer.finish();
  const Bytes reply = out.bytes().subspan(LATCHKEY_HEADER_BYTES);

  Random random(1);
  for (int round = 0; round < 50'000; ++round) {
    auto body = round % 2 == 0 ? raw.bytes() : std::vector(reply.begin(), reply.end());
    for (std::size_t damage = 1 + random.below(3); damage > 0; --damage) {
      body[random.below(body.size())] = static_cast<std::uint8_t>(random.bits());
    }
    body.resize(random.below(4) == 0 ? random.below(body.size()) : body.size());
    decode_all(Exact(body).bytes());
  }
}

TEST(OutBufferTest, KeepsLittleOfALargeReply) {
  OutBuffer out;
  out.grow(1000);
  const std::size_t usual = out.capacity();
  out.clear();
  EXPECT_EQ(out.size(), 0U);
  EXPECT_EQ(out.capacity(), usual);
  out.grow(OutBuffer::kKept + 1);
  out.clear();
  EXPECT_EQ(out.capacity(), 0U);
  *out.grow(1) = 7;
  EXPECT_EQ(out.bytes()[0], 7);
}

}  // namespace
}  // namespace latchkey
