// Conversion of a database row to a record, or the reason against it: ids, keys, times, states,
// peppers, tokens, sizes.
#include "loader/postgres/row.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <unordered_set>

#include "tests/unit/support/base64.h"
#include "tests/unit/support/helpers.h"
#include "tests/unit/support/row_reading.h"

namespace latchkey {
namespace {

using test::base64;
using test::binary_time;
using test::claim_of;
using test::kEpochUs;
using test::RowReading;

constexpr std::int64_t kMin = std::numeric_limits<std::int64_t>::min();
constexpr std::int64_t kMax = std::numeric_limits<std::int64_t>::max();

TEST(RowTime, CountsFrom1970AndKeepsInfinities) {
  EXPECT_EQ(unix_us_from_timestamptz(0), kEpochUs);
  EXPECT_EQ(unix_us_from_timestamptz(-kEpochUs), 0);
  EXPECT_EQ(unix_us_from_timestamptz(1), kEpochUs + 1);
  EXPECT_EQ(unix_us_from_timestamptz(-kEpochUs - 1), -1);
  EXPECT_EQ(unix_us_from_timestamptz(kMax), kNeverExpires) << "infinity";
  EXPECT_EQ(unix_us_from_timestamptz(kMin), kAlwaysValid) << "-infinity";
  EXPECT_EQ(unix_us_from_timestamptz(kMax - kEpochUs), kMax);
  EXPECT_EQ(unix_us_from_timestamptz(kMax - kEpochUs - 1), kMax - 1);
  EXPECT_EQ(unix_us_from_timestamptz(kMax - kEpochUs + 1), kNeverExpires);
  EXPECT_EQ(unix_us_from_timestamptz(kMax - 1), kNeverExpires);
  EXPECT_EQ(unix_us_from_timestamptz(kMin + 1), kMin + 1 + kEpochUs);
}

TEST_F(RowReading, TakesOverWhatTheRowSays) {
  const std::string expires = binary_time(5), not_before = binary_time(-7);
  row_[kFieldExpires] = expires;
  row_[kFieldNotBefore] = not_before;
  row_[kFieldSubject] = "42";
  row_[kFieldTenant] = "";
  row_[kFieldMetadata] = "{\"a\": 1}";
  const Record* record = read();
  ASSERT_NE(record, nullptr);
  expect_nothing_odd();
  EXPECT_EQ(as_text(record->digest().bytes), key_);
  EXPECT_EQ(record->key_id(), "17");
  EXPECT_EQ(record->state(), RowState::kActive);
  EXPECT_EQ(record->expires_us(), kEpochUs + 5);
  EXPECT_EQ(record->not_before_us(), kEpochUs - 7);
  EXPECT_EQ(claim_of(*record, LATCHKEY_CLAIM_SUBJECT), "42");
  EXPECT_EQ(claim_of(*record, LATCHKEY_CLAIM_TENANT), "");
  EXPECT_EQ(claim_of(record->metadata(), LATCHKEY_CLAIM_METADATA), "{\"a\": 1}");
  EXPECT_EQ(record->scopes(), nullptr);
}

TEST_F(RowReading, LeavesOutWhatTheRowDoesNotSay) {
  const Record* record = read();
  ASSERT_NE(record, nullptr);
  EXPECT_EQ(record->expires_us(), kNeverExpires);
  EXPECT_EQ(record->not_before_us(), kAlwaysValid);
  EXPECT_EQ(claim_of(*record, LATCHKEY_CLAIM_SUBJECT), "(none)");
  EXPECT_EQ(claim_of(*record, LATCHKEY_CLAIM_TENANT), "(none)");
  EXPECT_TRUE(record->metadata().empty());
}

TEST_F(RowReading, RefusesANumberThatIsNoCountOfSeconds) {
  const std::string no_time = binary_time(kNoTimePostgresUs);
  for (const RowField field : {kFieldExpires, kFieldNotBefore}) {
    row_[kFieldExpires] = row_[kFieldNotBefore] = std::nullopt;
    row_[field] = no_time;
    EXPECT_EQ(read()->state(), RowState::kDisabled);
    expect_odd(Oddity::kUnreadableTime);
  }
}

TEST_F(RowReading, KnowsInfinitiesInEitherRole) {
  const std::string infinity = binary_time(kMax), minus_infinity = binary_time(kMin);
  row_[kFieldExpires] = infinity;
  row_[kFieldNotBefore] = minus_infinity;
  EXPECT_EQ(read()->expires_us(), kNeverExpires);
  EXPECT_EQ(read()->not_before_us(), kAlwaysValid);
  row_[kFieldExpires] = minus_infinity;
  row_[kFieldNotBefore] = infinity;
  EXPECT_EQ(read()->expires_us(), kMin) << "has expired at any time";
  EXPECT_EQ(read()->not_before_us(), kMax) << "never begins";
}

// Only a NULL means that a key never expires.
TEST_F(RowReading, NeverAcceptsATimeThatItCannotRead) {
  for (const char* bad : {"", "1234567", "123456789"}) {
    for (const RowField field : {kFieldExpires, kFieldNotBefore}) {
      row_[kFieldExpires] = row_[kFieldNotBefore] = std::nullopt;
      row_[field] = bad;
      const Record* record = read();
      EXPECT_TRUE(record == nullptr || record->state() != RowState::kActive) << bad;
    }
  }
}

TEST_F(RowReading, ReadsStates) {
  const std::pair<const char*, RowState> states[] = {{"a", RowState::kActive},
                                                     {"r", RowState::kRevoked},
                                                     {"d", RowState::kDisabled},
                                                     {"x", RowState::kDeleted}};
  for (const auto& [letter, state] : states) {
    row_[kFieldState] = letter;
    EXPECT_EQ(read()->state(), state);
    expect_nothing_odd();
  }
  for (const std::optional<std::string_view> odd :
       {std::optional<std::string_view>("u"), std::optional<std::string_view>(""),
        std::optional<std::string_view>("active"), std::optional<std::string_view>("A"),
        std::optional<std::string_view>()}) {
    row_[kFieldState] = odd;
    EXPECT_EQ(read()->state(), RowState::kDisabled);
    expect_odd(Oddity::kUnknownStatus);
  }
}

TEST_F(RowReading, MakesNoRecordWithoutAKey) {
  for (const std::optional<std::string_view> none :
       {std::optional<std::string_view>(), std::optional<std::string_view>("")}) {
    for (const Encoding encoding : {Encoding::kRaw, Encoding::kHex, Encoding::kBase64}) {
      // (With kRaw, an empty value also stands for a digest that the server has cut.)
      if (none && encoding == Encoding::kRaw) continue;
      source_.encoding = encoding;
      row_[kFieldKey] = none;
      EXPECT_EQ(read(), nullptr);
      expect_odd(Oddity::kNoKey);
    }
  }
  source_.encoding = Encoding::kRaw;
  row_[kFieldKey] = key_;
  row_[kFieldId] = std::nullopt;
  EXPECT_EQ(read(), nullptr);
}

TEST_F(RowReading, TakesDigestsOf32BytesInTheConfiguredEncodingOnly) {
  const std::string hex = [&] {
    std::string text;
    for (const char c : key_) {
      constexpr const char* kDigits = "0123456789abcdef";
      text += kDigits[static_cast<unsigned char>(c) >> 4];
      text += kDigits[c & 15];
    }
    return text;
  }();
  const std::string b64 = base64(key_);
  const struct {
    Encoding encoding;
    std::string field;
    bool good;
  } cases[] = {
      {Encoding::kRaw, key_, true},
      {Encoding::kRaw, key_.substr(1), false},
      {Encoding::kRaw, key_ + "x", false},
      {Encoding::kRaw, key_ + key_, false},  // 64 bytes: some old rows have these
      {Encoding::kRaw, hex, false},
      {Encoding::kHex, hex, true},
      {Encoding::kHex, hex.substr(2), false},
      {Encoding::kHex, hex.substr(1), false},
      {Encoding::kHex, hex + "00", false},
      {Encoding::kHex, "\\x" + hex, false},
      {Encoding::kHex, key_, false},
      {Encoding::kHex, b64, false},
      {Encoding::kBase64, b64, true},
      {Encoding::kBase64, base64(key_, true), true},
      {Encoding::kBase64, base64(key_, true, false), true},
      {Encoding::kBase64, base64(key_.substr(1)), false},
      {Encoding::kBase64, base64(key_ + "x"), false},
      {Encoding::kBase64, b64 + "\n", false},
      {Encoding::kBase64, hex, false},
      {Encoding::kBase64, "garbage!", false},
  };
  for (const auto& c : cases) {
    for (const Scheme scheme : {Scheme::kSha256, Scheme::kHmac}) {
      SCOPED_TRACE(c.field);
      source_.scheme = scheme;
      source_.encoding = c.encoding;
      row_[kFieldKey] = c.field;
      const Record* record = read();
      ASSERT_EQ(record != nullptr, c.good);
      if (!c.good) {
        expect_odd(Oddity::kBadDigest);
      } else {
        EXPECT_EQ(as_text(record->digest().bytes), key_);
      }
    }
  }
}

TEST_F(RowReading, TakesThePlainKeysDigestFromTheQueryWhateverTheEncodingSays) {
  source_.scheme = Scheme::kPlain;
  source_.encoding = Encoding::kHex;
  ASSERT_NE(read(), nullptr);
  row_[kFieldKey] = "the key itself, which no query of ours selects";
  EXPECT_EQ(read(), nullptr);
  expect_odd(Oddity::kBadDigest);
}

TEST_F(RowReading, CountsPepperVersionsThatAreNotAtHandButKeepsTheRow) {
  source_.scheme = Scheme::kHmac;
  source_.columns[Role::kKeyVersion] = "version";
  row_[kFieldKeyVersion] = "v2.key";
  EXPECT_EQ(read()->state(), RowState::kActive);
  expect_nothing_odd();
  for (const char* unknown : {"v3.key", "", "v2", "V2.key"}) {
    row_[kFieldKeyVersion] = unknown;
    EXPECT_NE(read(), nullptr);
    expect_odd(Oddity::kUnknownPepper);
  }
  row_[kFieldKeyVersion] = std::nullopt;
  EXPECT_NE(read(), nullptr);
  expect_odd(Oddity::kUnknownPepper);
  source_.columns.erase(Role::kKeyVersion);
  EXPECT_NE(read(), nullptr);
  expect_nothing_odd();
}

TEST_F(RowReading, LetsTheStricterOfRowAndTokenCount) {
  const std::string row_time = binary_time(1'700'000'000'000'000 - kEpochUs);
  const struct {
    const char* claims;
    bool row_has_time;
    std::int64_t expires_us;
  } cases[] = {
      {R"({"exp":1800000000})", true, 1'700'000'000'000'000},
      {R"({"exp":1600000000})", true, 1'600'000'000'000'000},
      {"{}", true, 1'700'000'000'000'000},
      {R"({"exp":1600000000})", false, 1'600'000'000'000'000},
      {"{}", false, kNeverExpires},
      {R"({"exp":-1e300})", true, kMin},
  };
  for (const auto& c : cases) {
    with_claims(c.claims);
    row_[kFieldExpires] = c.row_has_time ? std::optional<std::string_view>(row_time) : std::nullopt;
    EXPECT_EQ(read()->expires_us(), c.expires_us) << c.claims;
    expect_nothing_odd();
  }
  with_claims(R"({"nbf":1800000000})");
  row_[kFieldNotBefore] = row_time;
  EXPECT_EQ(read()->not_before_us(), 1'800'000'000'000'000) << "the later one";
  with_claims(R"({"nbf":1600000000})");
  EXPECT_EQ(read()->not_before_us(), 1'700'000'000'000'000);
}

TEST_F(RowReading, RefusesATokenWhoseClaimsItCannotRead) {
  for (const char* bad : {R"({"exp":1700000000000})", R"({"exp":1e300})", R"({"nbf":1e12})"}) {
    with_claims(bad);
    EXPECT_EQ(read()->state(), RowState::kDisabled) << bad;
    expect_odd(Oddity::kUnreadableJwt);
  }
  with_claims(R"({"exp":"soon"})");
  EXPECT_EQ(read()->state(), RowState::kDisabled);
  expect_odd(Oddity::kUnreadableJwt);
  row_[kFieldState] = "r";
  EXPECT_EQ(read()->state(), RowState::kRevoked) << "what is worse is kept";
  row_[kFieldState] = "a";
  for (const std::optional<std::string_view> bad :
       {std::optional<std::string_view>(), std::optional<std::string_view>(""),
        std::optional<std::string_view>("not!base64")}) {
    row_[kFieldJwtClaims] = bad;
    EXPECT_EQ(read()->state(), RowState::kDisabled);
    expect_odd(Oddity::kUnreadableJwt);
  }
}

TEST_F(RowReading, ServesWithoutMetadataThatAreTooLong) {
  // source (1 byte), key id, expiry, metadata, each with tag and length
  const std::size_t room = LATCHKEY_CLAIMS_BYTES_MAX - (3 + 1) - (3 + 2) - (3 + 8) - 3;
  const std::string fits(room, 'm'), too_long(room + 1, 'm');
  row_[kFieldMetadata] = fits;
  EXPECT_EQ(read()->metadata().size(), room + 3);
  expect_nothing_odd();
  row_[kFieldMetadata] = too_long;
  const Record* record = read();
  EXPECT_TRUE(record->metadata().empty());
  EXPECT_EQ(record->state(), RowState::kActive);
  expect_odd(Oddity::kMetadataTooLong);
  const std::string huge(1'000'000, 'm');
  row_[kFieldMetadata] = huge;
  EXPECT_EQ(read()->state(), RowState::kActive);
}

TEST_F(RowReading, RefusesAnIdentityThatIsTooLong) {
  const std::size_t room = LATCHKEY_CLAIMS_BYTES_MAX - (3 + 1) - (3 + 2) - (3 + 8) - 3;
  const std::string fits(room, 's'), too_long(room + 1, 's');
  row_[kFieldSubject] = fits;
  EXPECT_EQ(read()->state(), RowState::kActive);
  expect_nothing_odd();
  for (const RowField field : {kFieldSubject, kFieldTenant}) {
    row_[kFieldSubject] = row_[kFieldTenant] = std::nullopt;
    row_[field] = too_long;
    const Record* record = read();
    ASSERT_NE(record, nullptr);
    EXPECT_EQ(record->state(), RowState::kDisabled);
    expect_odd(Oddity::kClaimsTooLong);
    EXPECT_EQ(claim_of(*record, LATCHKEY_CLAIM_SUBJECT), "(none)");
    EXPECT_EQ(record->key_id(), "17");
  }
  row_[kFieldState] = "r";
  EXPECT_EQ(read()->state(), RowState::kRevoked);
}

TEST(RowOddities, HaveNamesAndSentences) {
  std::unordered_set<std::string> names;
  // Users' scripts depend on these names.
  EXPECT_STREQ(oddity_name(Oddity::kUnknownPepper), "unknown_pepper_version");
  EXPECT_STREQ(oddity_name(Oddity::kMetadataTooLong), "metadata_too_long");
  for (std::size_t i = 0; i < kOddities; ++i) {
    names.insert(oddity_name(static_cast<Oddity>(i)));
    EXPECT_GT(std::string(oddity_sentence(static_cast<Oddity>(i))).size(), 20U);
  }
  EXPECT_EQ(names.size(), kOddities);
  EXPECT_FALSE(names.contains(""));
}

// If the reader omitted this row, another row with its key would admit it.
TEST_F(RowReading, RefusesWhatIsNoTextInTheDatabasesEncoding) {
  for (const auto& [state, expected] :
       {std::pair("a", RowState::kDisabled), std::pair("r", RowState::kRevoked),
        std::pair("odd", RowState::kDisabled)}) {
    source_.scheme = Scheme::kSha256;
    row_[kFieldState] = state;
    row_[kFieldUnreadable] = "x";
    const Record* record = read();
    ASSERT_NE(record, nullptr);
    expect_odd(Oddity::kUnreadableText);
    EXPECT_EQ(record->state(), expected);
    EXPECT_EQ(record->key_id(), "17");
    EXPECT_EQ(as_text(record->digest().bytes), key_);
  }
  // This does not apply if the key is unreadable.
  for (const std::string_view key : {std::string_view(), std::string_view("short")}) {
    row_[kFieldKey] = key;
    EXPECT_FALSE(read());
    expect_odd(Oddity::kUnreadableText);
  }
  source_.scheme = Scheme::kPlain;
  row_[kFieldUnreadable].reset();
  row_[kFieldKey] = kKeyNotAscii;
  EXPECT_FALSE(read());
  expect_odd(Oddity::kUnreadableText);
}

TEST_F(RowReading, RefusesARowWhoseIdIsTooLong) {
  const std::string id(LATCHKEY_CLAIMS_BYTES_MAX + 1, 'x');
  row_[kFieldId] = id;
  for (const auto& [state, expected] :
       {std::pair("a", RowState::kDisabled), std::pair("r", RowState::kRevoked)}) {
    row_[kFieldState] = state;
    const Record* record = read();
    ASSERT_NE(record, nullptr);
    expect_odd(Oddity::kClaimsTooLong);
    EXPECT_EQ(record->state(), expected);
    EXPECT_THAT(std::string(record->key_id()), testing::StartsWith("(id too long) 030a11"));
  }
}

}  // namespace
}  // namespace latchkey
