// What can be odd about a row of a key table, whatever database it is in.
#pragma once

#include <array>
#include <bitset>
#include <cstdint>

#include "loader/finding.h"

namespace latchkey {

// What is odd about a row. The operator reads these in the log and in `status`.
enum class Oddity {
  kNoKey,            // the key column is NULL: nothing to present
  kBadDigest,        // not 32 bytes, or not hex / base64: can never match
  kUnknownPepper,    // hashed with a pepper version that is not at hand: can never match
  kUnknownStatus,    // a status in no list: refused as disabled
  kBadScopes,        // scopes that are no list of words: refused as disabled
  kUnusableScope,    // one scope that no request can name (empty, or with a space): left out
  kUnreadableTime,   // an expiry or not-before that is no time: refused as disabled
  kUnreadableJwt,    // a token whose claims cannot be read: refused as disabled
  kClaimsTooLong,    // more than LATCHKEY_CLAIMS_BYTES_MAX: refused as disabled
  kMetadataTooLong,  // served without its metadata
  kUnreadableText,   // no text in the database's encoding, or not in Unicode: refused as disabled
  kUseTimeUnit,      // last_used_at holds a number that is no count of seconds: nothing is written
};
constexpr std::size_t kOddities = 12;
// Under which number it is reported.
[[nodiscard]] Lint lint_of(Oddity oddity);
[[nodiscard]] const char* oddity_name(Oddity oddity);
// What it means for the key's holder and what to do.
[[nodiscard]] const char* oddity_sentence(Oddity oddity);

using OddityCounts = std::array<std::uint64_t, kOddities>;

// Of one row.
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
