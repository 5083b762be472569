// Conversion of a database row to a record, or the reason against it.
#include "loader/postgres/row.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <map>
#include <vector>

#include "tests/unit/support/base64.h"
#include "tests/unit/support/helpers.h"

namespace latchkey {
namespace {

using test::base64;
using test::claim_of;

constexpr std::int64_t kMin = std::numeric_limits<std::int64_t>::min();
constexpr std::int64_t kMax = std::numeric_limits<std::int64_t>::max();
constexpr std::int64_t kEpochUs = 946'684'800'000'000;  // 2000-01-01 in microseconds since 1970

std::string bytes32() {
  std::string bytes;
  for (int i = 0; i < 32; ++i) bytes += static_cast<char>(i * 7 + 3);
  return bytes;
}

std::string binary_time(std::int64_t us_since_2000) {
  std::string bytes;
  for (int shift = 56; shift >= 0; shift -= 8) {
    bytes += static_cast<char>((static_cast<std::uint64_t>(us_since_2000) >> shift) & 0xFF);
  }
  return bytes;
}

// ---- times

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

// ---- rows

class RowReading : public testing::Test {
 protected:
  RowReading() {
    source_.name = "s";
    source_.scheme = Scheme::kSha256;
    source_.columns = {{Role::kId, "id"}, {Role::kKey, "key"}};
    row_[kFieldId] = "17";
    row_[kFieldKey] = key_;
    row_[kFieldState] = "a";
  }

  // The row as a record; null if there is none.
  const Record* read() {
    RowReader reader(source_, facts_, scopes_, {"v1.key", "v2.key"});
    counts_ = {};
    const RowMeaning meaning = reader.read(row_);
    meaning.odd.count_in(counts_);
    return meaning.facts ? records_.make(*meaning.facts) : nullptr;
  }
  // The row has exactly this oddity, once.
  void expect_odd(Oddity oddity) {
    for (std::size_t i = 0; i < kOddities; ++i) {
      EXPECT_EQ(counts_[i], i == static_cast<std::size_t>(oddity) ? 1U : 0U)
          << oddity_name(static_cast<Oddity>(i));
    }
  }
  void expect_nothing_odd() {
    for (std::size_t i = 0; i < kOddities; ++i) {
      EXPECT_EQ(counts_[i], 0U) << oddity_name(static_cast<Oddity>(i));
    }
  }
  void with_scopes(const char* type) {
    source_.columns[Role::kScopes] = "scopes";
    facts_.columns["scopes"] = type;
  }
  void with_claims(std::string_view json) {
    source_.scheme = Scheme::kJwt;
    claims_ = base64(json, true, false);
    row_[kFieldJwtClaims] = claims_;
  }

  const std::string key_ = bytes32();
  std::string claims_;
  ScopeSets scopes_;
  test::Records records_;
  SourceConfig source_;
  TableFacts facts_;
  RowView row_;
  OddityCounts counts_{};
};

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

// ---- scopes

TEST_F(RowReading, ReadsScopesFromJson) {
  with_scopes("jsonb");
  const std::pair<std::optional<std::string_view>, const char*> cases[] = {
      {R"(["read", "write"])", "read write"},
      {R"(["write","read"])", "write read"},
      {R"(["a:b/c", "caf\u00e9"])", "a:b/c caf\xC3\xA9"},
      {"[]", ""},
      {"null", ""},
      {std::nullopt, ""},
      {" [ ] ", ""},
  };
  for (const auto& [text, scope] : cases) {
    row_[kFieldScopes] = text;
    const Record* record = read();
    ASSERT_NE(record->scopes(), nullptr);
    EXPECT_EQ(claim_of(record->scopes()->claim, LATCHKEY_CLAIM_SCOPE), scope);
    EXPECT_EQ(record->state(), RowState::kActive);
    expect_nothing_odd();
  }
  row_[kFieldScopes] = R"(["write","read"])";
  EXPECT_TRUE(read()->scopes()->holds("read"));
  EXPECT_FALSE(read()->scopes()->holds("rea"));
}

TEST_F(RowReading, ReadsScopesFromWords) {
  with_scopes("text");
  const std::pair<std::optional<std::string_view>, const char*> cases[] = {
      {"read write", "read write"},
      {"read,write", "read write"},
      {" a ,\tb\r\n, ,c ", "a b c"},
      {"", ""},
      {std::nullopt, ""},
      {" , ", ""},
  };
  for (const auto& [text, scope] : cases) {
    row_[kFieldScopes] = text;
    const Record* record = read();
    EXPECT_EQ(claim_of(record->scopes()->claim, LATCHKEY_CLAIM_SCOPE), scope);
    EXPECT_EQ(record->state(), RowState::kActive);
    expect_nothing_odd();
  }
}

TEST_F(RowReading, RefusesScopesThatAreNoListOfWords) {
  with_scopes("jsonb");
  for (const char* bad : {R"({"read":true})", R"("read")", "7", "true", R"(["read",7])",
                          R"(["read",["write"]])", R"(["read",null])", "[", "read write"}) {
    row_[kFieldScopes] = bad;
    EXPECT_EQ(read()->state(), RowState::kDisabled) << bad;
    expect_odd(Oddity::kBadScopes);
    EXPECT_EQ(read()->state(), RowState::kDisabled) << "again: " << bad;
  }
  row_[kFieldScopes] = "7";
  row_[kFieldState] = "r";
  EXPECT_EQ(read()->state(), RowState::kRevoked);
  const std::string deep(20'000, '[');
  row_[kFieldScopes] = deep;
  EXPECT_EQ(read()->state(), RowState::kRevoked);
  expect_odd(Oddity::kBadScopes);
}

// The server cuts longer texts. The rest may look like valid scopes, so the row is refused.
TEST_F(RowReading, RefusesScopesThatWereCut) {
  for (const char* type : {"jsonb", "text"}) {
    with_scopes(type);
    std::string cut = "read ";
    cut.resize(static_cast<std::size_t>(kScopesBytesMax) + 1, ' ');
    row_[kFieldScopes] = cut;
    EXPECT_EQ(read()->state(), RowState::kDisabled) << type;
    expect_odd(Oddity::kClaimsTooLong);
    cut.pop_back();
    row_[kFieldScopes] = cut;
    EXPECT_EQ(read()->state(),
              std::string_view(type) == "text" ? RowState::kActive : RowState::kDisabled);
  }
}

TEST_F(RowReading, LeavesOutScopesThatNoRequestCanName) {
  with_scopes("jsonb");
  const std::string long_scope = "[\"read\", \"" + std::string(256, 'x') + "\"]";
  for (const std::string_view text :
       {std::string_view(R"(["read", ""])"), std::string_view(R"(["read", "a b"])"),
        std::string_view(R"(["read", "a\tb"])"), std::string_view(R"(["\u007f", "read"])"),
        std::string_view(R"(["\u0000", "read"])"), std::string_view(long_scope)}) {
    for (int time = 0; time < 2; ++time) {  // the second row is counted like the first
      row_[kFieldScopes] = text;
      const Record* record = read();
      EXPECT_EQ(record->state(), RowState::kActive);
      EXPECT_EQ(claim_of(record->scopes()->claim, LATCHKEY_CLAIM_SCOPE), "read") << text;
      expect_odd(Oddity::kUnusableScope);
    }
  }
  const std::string longest = "[\"" + std::string(255, 'x') + "\"]";
  row_[kFieldScopes] = longest;
  EXPECT_TRUE(read()->scopes()->holds(std::string(255, 'x')));
  expect_nothing_odd();
}

// The owner of a row must not be able to change the scopes of other rows.
TEST_F(RowReading, ReadsScopesTheSameWhateverOtherRowsSaid) {
  with_scopes("jsonb");
  const std::string poison = R"(["[\"admin\"]", ""])";  // scopes: ["admin"] (one word) and ""
  row_[kFieldScopes] = poison;
  (void)read();
  row_[kFieldScopes] = R"(["admin"])";
  const Record* second = read();
  EXPECT_EQ(claim_of(second->scopes()->claim, LATCHKEY_CLAIM_SCOPE), "admin");
  row_[kFieldScopes] = R"(["[]", ""])";
  (void)read();
  row_[kFieldScopes] = "[]";
  const Record* fourth = read();
  EXPECT_EQ(claim_of(fourth->scopes()->claim, LATCHKEY_CLAIM_SCOPE), "");
}

// A row's scopes are the same after any other rows, in any order. The texts collide with each
// other, with possible keys of a cache, and with themselves after cleaning.
TEST_F(RowReading, ReadsScopesTheSameAfterAnyOthers) {
  std::vector<std::string> texts;
  for (const std::string word : {"admin", "admin ", "a", "[]", "\"", "{"}) {
    for (const std::string before : {"", " ", "\x01", "\x02", "[\"", "{\"", "\"", "\xC2\xA0"}) {
      for (const std::string after : {"", " ", "\x01", "\x02", "\"]", "\"}", ",", " \x02"}) {
        texts.push_back(before + word + after);
      }
    }
  }
  const auto said = [&](RowReader& reader, const std::string& text) {
    row_[kFieldScopes] = text;
    OddityCounts counts{};
    const RowMeaning meaning = reader.read(row_);
    meaning.odd.count_in(counts);
    const auto& facts = meaning.facts;
    std::string told = facts->state == RowState::kActive ? "active" : "refused";
    for (const std::uint64_t odd : counts) told += " " + std::to_string(odd);
    return facts->scopes == nullptr ? told
                                    : told + claim_of(facts->scopes->claim, LATCHKEY_CLAIM_SCOPE);
  };
  test::Random random;
  for (const char* type : {"text", "jsonb"}) {
    with_scopes(type);
    std::map<std::string, std::string> alone;
    for (const std::string& text : texts) {
      ScopeSets scopes;
      RowReader reader(source_, facts_, scopes, {});
      alone[text] = said(reader, text);
    }
    RowReader reader(source_, facts_, scopes_, {});
    for (int round = 0; round < 20'000; ++round) {
      const std::string& text = texts[random.below(texts.size())];
      ASSERT_EQ(said(reader, text), alone[text]) << type << ": " << text;
    }
  }
}

TEST_F(RowReading, TakesTextThatBeginsLikeJsonForJson) {
  with_scopes("text");
  const struct {
    const char* text;
    const char* scopes;  // null: refused
  } cases[] = {
      {R"(["read","write"])", "read write"},
      {R"(  ["read", "write"] )", "read write"},
      {R"([])", ""},
      {R"(read "admin")", nullptr},
      {R"({"scopes":["read"],"comment":"may not use admin api"})", nullptr},
      {R"({read,write})", nullptr},
      {R"("read")", nullptr},
      {R"("read admin)", nullptr},
      {R"([read, write])", nullptr},
      {R"(["read"] admin)", nullptr},
      {R"([["read"]])", nullptr},
      {R"(, ["read"])", nullptr},
      {"\xEF\xBB\xBF[\"read\"]", "read"},
      {"\xEF\xBB\xBF{\"comment\": \"may not use admin api\"}", nullptr},
      {"\v\f{\"comment\": \"may not use admin api\"}", nullptr},
      {"\xC2\xA0{\"comment\": \"may not use admin api\"}", nullptr},
  };
  for (const auto& [text, scopes] : cases) {
    row_[kFieldScopes] = text;
    const Record* record = read();
    EXPECT_EQ(record->state(), scopes == nullptr ? RowState::kDisabled : RowState::kActive) << text;
    if (scopes == nullptr) {
      EXPECT_EQ(record->scopes(), nullptr) << text;
      expect_odd(Oddity::kBadScopes);
    } else {
      EXPECT_EQ(claim_of(record->scopes()->claim, LATCHKEY_CLAIM_SCOPE), scopes) << text;
    }
  }
}

TEST_F(RowReading, SharesEqualScopeSets) {
  with_scopes("jsonb");
  row_[kFieldScopes] = R"(["a", "b"])";
  const Record* first = read();
  row_[kFieldScopes] = R"(["a","b"])";
  const Record* second = read();
  EXPECT_EQ(first->scopes(), second->scopes());
  row_[kFieldScopes] = R"(["a b"])";
  EXPECT_NE(read()->scopes(), first->scopes()) << "one scope with a space is not two";
}

// ---- sizes

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

TEST_F(RowReading, RefusesScopesThatAreTooLongAltogether) {
  with_scopes("text");
  std::string scopes;
  for (int i = 0; i < 20'000; ++i) scopes += "scope" + std::to_string(i) + " ";  // over 64 KiB
  row_[kFieldScopes] = scopes;
  const Record* record = read();
  EXPECT_EQ(record->state(), RowState::kDisabled);
  EXPECT_EQ(record->scopes(), nullptr);
  expect_odd(Oddity::kClaimsTooLong);
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

TEST_F(RowReading, TakesNoWordsOutOfOtherNotations) {
  with_scopes("text");
  for (const char* bad : {R"(1 ["a", admin ])", R"(/* "x" */ admin)", "(read admin write)",
                          "'read admin write'", "- read\n- admin", "<s>not for admin please</s>",
                          "read {admin}", "read \\ admin", "`admin`", "read >admin"}) {
    row_[kFieldScopes] = bad;
    EXPECT_EQ(read()->state(), RowState::kDisabled) << bad;
    expect_odd(Oddity::kBadScopes);
  }
  for (const char* good :
       {"read:keys https://example.com/auth/x.y write-all *", "a=b a!b a+b ~a"}) {
    row_[kFieldScopes] = good;
    EXPECT_EQ(read()->state(), RowState::kActive) << good;
    expect_nothing_odd();
  }
}

// ---- wire format

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
