// A database row to be read, and checks of the record made of it and of the oddities counted.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <limits>
#include <string>
#include <string_view>

#include "loader/postgres/row.h"
#include "tests/unit/support/base64.h"
#include "tests/unit/support/helpers.h"

namespace latchkey::test {

// 2000-01-01 in microseconds since 1970.
inline constexpr std::int64_t kEpochUs = 946'684'800'000'000;

// A digest of 32 different bytes.
inline std::string bytes32() {
  std::string bytes;
  for (int i = 0; i < 32; ++i) bytes += static_cast<char>(i * 7 + 3);
  return bytes;
}

// A timestamp in the binary format of the wire.
inline std::string binary_time(std::int64_t us_since_2000) {
  std::string bytes;
  for (int shift = 56; shift >= 0; shift -= 8) {
    bytes += static_cast<char>((static_cast<std::uint64_t>(us_since_2000) >> shift) & 0xFF);
  }
  return bytes;
}

// A row with an id, a key and a state; tests add further fields.
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
  Records records_;
  SourceConfig source_;
  TableFacts facts_;
  RowView row_;
  OddityCounts counts_{};
};

}  // namespace latchkey::test
