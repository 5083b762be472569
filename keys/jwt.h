// JSON Web Tokens (RFC 7519): what their claims say, and whether their signature is good.
//
// Some tables keep a token whole: then the text decides, and only the times of its claims count.
// Others keep only its `jti`: then the signature decides whether the claims are the issuer's, and
// the jti is looked up. For these there is one algorithm, HS256 (RFC 7518 section 3.2), because the
// configuration says so. What a token's header says can only make it no match (RFC 8725 section
// 3.1).
//
// The signature is checked before anything is parsed: whatever reaches the JSON parser was written
// by somebody who has the secret. The parser builds no tree and does not recurse, so that depth
// costs nothing; its memory is bounded by the text's size.
//
// A token's `iss`, `aud`, `sub` and `typ` are not looked at: whose key it is, the row says.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "base/clock.h"
#include "keys/digest.h"

namespace latchkey {

struct JwtTimes {
  std::int64_t expires_us = kNeverExpires;
  std::int64_t not_before_us = kAlwaysValid;
};

struct JwtClaims {
  std::optional<std::string> jti;  // not empty, no zero byte; nothing: none that can be looked up
  JwtTimes times;
};
// From the JSON text of a claims set (RFC 7519 section 4.1). Nothing if it is no JSON object, its
// times are no numbers or lie beyond the year 2200 (milliseconds, perhaps), or one of jti, exp and
// nbf stands there twice. A null is as good as nothing: SQL that builds tokens writes it for what a
// row does not have.
[[nodiscard]] std::optional<JwtClaims> read_jwt_claims(std::string_view json);

// What a row that keeps only a jti is looked up by.
struct JtiDigests {
  // SHA-256 of the jti as it stands there: how a text column is matched. A jti is case-sensitive.
  Digest text{};
  // SHA-256 of a zero byte and the UUID's 16 bytes, if it is a UUID: how a uuid column is matched,
  // whichever case its hex is in. No text can hold a zero byte, so neither is taken for the other.
  std::optional<Digest> uuid;
};
// Its other half is what `loader/postgres/queries` has PostgreSQL compute.
[[nodiscard]] JtiDigests jti_digests(std::string_view jti);

// A secret that tokens are signed with.
class Hs256Key {
 public:
  // RFC 7518 section 3.2: as many bytes as the hash has, or who has a token can try out secrets.
  static constexpr std::size_t kSecretBytesMin = 32;

  explicit Hs256Key(std::span<const std::uint8_t> secret) : hmac_(secret) {}

  // claims[i] of tokens[i]: the JSON text of its claims set, if it is a compact JWS (RFC 7515)
  // whose header says HS256 and demands nothing else (`crit`), and this key signed it; else
  // nothing. Signatures are compared in constant time, and wiped.
  void open(std::span<const std::string_view> tokens,
            std::span<std::optional<std::string>> claims) const;
  [[nodiscard]] std::optional<std::string> open(std::string_view token) const;

 private:
  HmacKey hmac_;
};

}  // namespace latchkey
