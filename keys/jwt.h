// JSON Web Tokens (RFC 7519): reads claims and verifies signatures.
//
// Some tables store whole tokens: the text is then looked up, and only the times of its claims
// count. Other tables store only the `jti`: the signature then proves that the claims are the
// issuer's, and the jti is looked up. These tables use one algorithm, HS256 (RFC 7518 section 3.2),
// because the configuration says so. A token's header can only turn a match into a mismatch (RFC
// 8725 section 3.1).
//
// The signature is checked before anything is parsed: only text written by a holder of the secret
// reaches the JSON parser. The parser builds no tree and does not recurse, so nesting depth costs
// nothing; its memory is bounded by the size of the text.
//
// A token's `iss`, `aud`, `sub` and `typ` are ignored: the row names the key's owner.
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
  std::optional<std::string> jti;  // non-empty, no zero byte; nullopt: no usable jti
  JwtTimes times;
};
// Reads the JSON text of a claims set (RFC 7519 section 4.1). Returns nullopt if the text is not a
// JSON object, if exp or nbf is not a number or lies beyond the year 2199 (probably milliseconds),
// or if jti, exp or nbf occurs twice. null counts as absent: SQL that builds tokens writes it for a
// missing column value.
[[nodiscard]] std::optional<JwtClaims> read_jwt_claims(std::string_view json);

// Digests that match a row which stores only a jti.
struct JtiDigests {
  // SHA-256 of the jti as written; matches a text column. A jti is case-sensitive.
  Digest text{};
  // SHA-256 of a zero byte and the UUID's 16 bytes, if the jti is a UUID; matches a uuid column,
  // regardless of the case of its hex digits. No text contains a zero byte, so the two digests
  // never match each other's columns.
  std::optional<Digest> uuid;
};
// `loader/postgres/queries` makes PostgreSQL compute the stored counterpart.
[[nodiscard]] JtiDigests jti_digests(std::string_view jti);

// A secret that signs tokens.
class Hs256Key {
 public:
  // RFC 7518 section 3.2: at least the size of the hash. A shorter secret can be guessed by trying
  // candidates against a token.
  static constexpr std::size_t kSecretBytesMin = 32;

  explicit Hs256Key(std::span<const std::uint8_t> secret) : hmac_(secret) {}

  // claims[i] receives the JSON text of tokens[i]'s claims set if the token is a compact JWS (RFC
  // 7515), its header says HS256 and has no `crit`, and this key signed it; otherwise nullopt.
  // Signatures are compared in constant time and wiped.
  void open(std::span<const std::string_view> tokens,
            std::span<std::optional<std::string>> claims) const;
  [[nodiscard]] std::optional<std::string> open(std::string_view token) const;

 private:
  HmacKey hmac_;
};

}  // namespace latchkey
