#include "loader/oddity.h"

namespace latchkey {

Lint lint_of(Oddity oddity) {
  switch (oddity) {
    case Oddity::kNoKey: return Lint::kNoKey;
    case Oddity::kBadDigest: return Lint::kBadDigest;
    case Oddity::kUnknownPepper: return Lint::kUnknownPepper;
    case Oddity::kUnknownStatus: return Lint::kUnknownStatus;
    case Oddity::kBadScopes: return Lint::kBadScopes;
    case Oddity::kUnusableScope: return Lint::kUnusableScope;
    case Oddity::kUnreadableTime: return Lint::kUnreadableTime;
    case Oddity::kUnreadableJwt: return Lint::kUnreadableJwt;
    case Oddity::kClaimsTooLong: return Lint::kClaimsTooLong;
    case Oddity::kMetadataTooLong: return Lint::kMetadataTooLong;
    case Oddity::kUnreadableText: return Lint::kUnreadableText;
    case Oddity::kUseTimeUnit: return Lint::kUseTimeUnit;
  }
  return Lint::kBadDigest;
}

const char* oddity_name(Oddity oddity) { return rule_of(lint_of(oddity)).name; }

const char* oddity_sentence(Oddity oddity) {
  switch (oddity) {
    case Oddity::kNoKey: return "the key column is NULL or empty; nobody can present such a key";
    case Oddity::kBadDigest:
      return "the stored digest is not 32 bytes in the configured encoding, so no key can match it;"
             " if it is most rows, `encoding` or `scheme` is wrong, else issue these keys anew";
    case Oddity::kUnknownPepper:
      return "the pepper version of the row is not in the `peppers` folder, so no key can match it;"
             " put the file back or issue these keys anew";
    case Oddity::kUnknownStatus:
      return "the status is in none of status_active, status_revoked, status_disabled; the key is"
             " refused as disabled";
    case Oddity::kBadScopes:
      return "the scopes are no list of words, nor a JSON array of such; the key is refused as"
             " disabled";
    case Oddity::kUnusableScope:
      return "a scope is empty, holds a space or is longer than 255 bytes; it is left out";
    case Oddity::kUnreadableTime:
      return "expires_at or not_before is no time, or a number that is no count of seconds since"
             " 1970 (milliseconds, perhaps, or a mark for \"never\", which is NULL); the key is"
             " refused as disabled";
    case Oddity::kUnreadableJwt:
      return "the stored token's claims cannot be read, so neither can its expiry; the key is"
             " refused as disabled";
    case Oddity::kClaimsTooLong:
      return "id, subject, tenant and scopes exceed 4096 bytes; the key is refused as disabled";
    case Oddity::kMetadataTooLong: return "the metadata exceed 4096 bytes; answers leave them out";
    case Oddity::kUnreadableText:
      return "the row holds bytes that are no text in the encoding of the database, so its key is"
             " refused as disabled; or a key that is not ASCII where that is not UTF-8, so no key"
             " can match it; correct the row";
    case Oddity::kUseTimeUnit:
      return "last_used_at holds a number that is no count of seconds since 1970 (milliseconds,"
             " perhaps), so it is not written in any row of this table; map a column of times";
  }
  return "";
}

}  // namespace latchkey
