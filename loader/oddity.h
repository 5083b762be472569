// The oddities that a row of a key table can have, in any database.
#pragma once

#include <array>
#include <bitset>
#include <cstdint>

#include "loader/finding.h"

namespace latchkey {

// An oddity of a row. The operator reads these in the log and in `status`.
enum class Oddity {
  kNoKey,            // the key column is NULL or empty: no key can be presented
  kBadDigest,        // not 32 bytes, or not hex / base64: can never match
  kUnknownPepper,    // hashed with an unavailable pepper version: can never match
  kUnknownStatus,    // a status in no list: refused as disabled
  kBadScopes,        // scopes that are no list of words: refused as disabled
  kUnusableScope,    // one scope that no request can name (empty, or with a space): left out
  kUnreadableTime,   // an expiry or not-before that is no time: refused as disabled
  kUnreadableJwt,    // a token whose claims cannot be read: refused as disabled
  kClaimsTooLong,    // more than LATCHKEY_CLAIMS_BYTES_MAX: refused as disabled
  kMetadataTooLong,  // served without its metadata
  kUnreadableText,   // invalid in the database's encoding, or not in Unicode: refused as disabled
  kUseTimeUnit,      // last_used_at holds a number that is no count of seconds: it is not written
};
constexpr std::size_t kOddities = 12;
// The finding that reports the oddity.
[[nodiscard]] Lint lint_of(Oddity oddity);
[[nodiscard]] const char* oddity_name(Oddity oddity);
// Its meaning for the key's holder, and the remedy.
[[nodiscard]] const char* oddity_sentence(Oddity oddity);

using OddityCounts = std::array<std::uint64_t, kOddities>;

// The oddities of one row.
class Oddities {
 public:
  void add(Oddity oddity) { bits_.set(static_cast<std::size_t>(oddity)); }
  [[nodiscard]] bool has(Oddity oddity) const {
    return bits_.test(static_cast<std::size_t>(oddity));
  }
  void count_in(OddityCounts& counts) const {
    if (bits_.none()) return;
    for (std::size_t i = 0; i < kOddities; ++i) counts[i] += bits_.test(i) ? 1U : 0U;
  }

 private:
  std::bitset<kOddities> bits_;
};

}  // namespace latchkey
