#include "keys/jwt.h"

#include <openssl/crypto.h>

#include <array>
#include <cassert>
#include <cmath>
#include <cstring>
#include <nlohmann/json.hpp>
#include <vector>

#include "base/encoding.h"

namespace latchkey {
namespace {

using nlohmann::json;

// ---- JSON

// A wanted member of the outermost JSON object. All other members are ignored.
struct Member {
  enum class Kind { kAbsent, kNull, kText, kWhole, kReal, kOther };

  std::string_view name;
  Kind kind = Kind::kAbsent;
  std::string text = {};
  std::int64_t whole = 0;
  double real = 0;
};

// Reads the wanted members and skips all others without storing them.
class MemberReader final : public json::json_sax_t {
 public:
  explicit MemberReader(std::span<Member> wanted) : wanted_(wanted) {}

  bool null() override { return take(Member::Kind::kNull); }
  bool boolean(bool) override { return take(Member::Kind::kOther); }
  bool number_integer(number_integer_t value) override {
    if (!take(Member::Kind::kWhole)) return false;
    if (taken_ != nullptr) taken_->whole = value;
    return true;
  }
  bool number_unsigned(number_unsigned_t value) override {
    constexpr auto kMax = static_cast<number_unsigned_t>(std::numeric_limits<std::int64_t>::max());
    return value <= kMax ? number_integer(static_cast<std::int64_t>(value))
                         : number_float(static_cast<double>(value), {});
  }
  bool number_float(number_float_t value, const string_t&) override {
    if (!take(Member::Kind::kReal)) return false;
    if (taken_ != nullptr) taken_->real = value;
    return true;
  }
  bool string(string_t& value) override {
    if (!take(Member::Kind::kText)) return false;
    if (taken_ != nullptr) taken_->text = value;
    return true;
  }
  bool binary(binary_t&) override { return false; }  // JSON has none

  bool start_object(std::size_t) override {
    const bool outermost = depth_ == 0;  // the parser allows only one
    if (!outermost && !take(Member::Kind::kOther)) return false;
    ++depth_;
    return true;
  }
  bool start_array(std::size_t) override {
    if (!take(Member::Kind::kOther)) return false;
    ++depth_;
    return true;
  }
  bool end_object() override {
    --depth_;
    return true;
  }
  bool end_array() override {
    --depth_;
    return true;
  }
  bool key(string_t& name) override {
    if (depth_ != 1) return true;
    named_ = nullptr;
    for (Member& member : wanted_) {
      if (member.name != name) continue;
      if (member.kind != Member::Kind::kAbsent) return false;  // duplicate: ambiguous
      named_ = &member;
    }
    return true;
  }
  bool parse_error(std::size_t, const std::string&, const nlohmann::detail::exception&) override {
    return false;
  }

 private:
  // Called when a value begins. Sets `taken_` to the value's wanted member, or to null. False
  // outside of an object.
  bool take(Member::Kind kind) {
    taken_ = depth_ == 1 ? named_ : nullptr;
    if (taken_ != nullptr) taken_->kind = kind;
    return depth_ > 0;
  }

  std::span<Member> wanted_;
  std::size_t depth_ = 0;
  Member* named_ = nullptr;  // the last name on the outermost level, if wanted
  Member* taken_ = nullptr;
};

// False if the text is not a JSON object or contains a wanted member twice.
bool read_members(std::string_view text, std::span<Member> wanted) {
  MemberReader reader(wanted);
  return json::sax_parse(text, &reader);
}

// ---- claims

constexpr double kSecondsMin = -9e12;  // still fits in microseconds
// 2200-01-01 00:00 UTC. A later time is probably in milliseconds and would never expire.
constexpr double kSecondsMax = 7'258'118'400;

// NumericDate (RFC 7519 section 2): seconds since 1970, with an optional fraction. False if
// invalid.
bool read_numeric_date(const Member& member, std::int64_t& us) {
  double seconds = member.real;
  switch (member.kind) {
    case Member::Kind::kAbsent:
    case Member::Kind::kNull: return true;
    case Member::Kind::kWhole: seconds = static_cast<double>(member.whole); break;
    case Member::Kind::kReal: break;
    case Member::Kind::kText:
    case Member::Kind::kOther: return false;
  }
  if (!std::isfinite(seconds) || seconds > kSecondsMax) return false;
  if (seconds <= kSecondsMin) {
    us = kAlwaysValid;
  } else if (member.kind == Member::Kind::kWhole) {
    us = member.whole * 1'000'000;
  } else {
    us = static_cast<std::int64_t>(std::floor(seconds * 1e6));
  }
  return true;
}

}  // namespace

std::optional<JwtClaims> read_jwt_claims(std::string_view text) {
  std::array<Member, 3> members{Member{"jti"}, Member{"exp"}, Member{"nbf"}};
  auto& [jti, exp, nbf] = members;
  if (!read_members(text, members)) return std::nullopt;
  JwtClaims claims;
  if (!read_numeric_date(exp, claims.times.expires_us)) return std::nullopt;
  if (!read_numeric_date(nbf, claims.times.not_before_us)) return std::nullopt;
  const bool usable = jti.kind == Member::Kind::kText && !jti.text.empty() &&
                      jti.text.find('\0') == std::string::npos;
  if (usable) claims.jti = std::move(jti.text);
  return claims;
}

namespace {

// The 16 bytes of a UUID in the text form of RFC 9562 section 4.
std::optional<std::string> uuid_bytes(std::string_view text) {
  if (text.size() != 36) return std::nullopt;
  std::string hex;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const bool dash = i == 8 || i == 13 || i == 18 || i == 23;
    if (!dash) {
      hex += text[i];
    } else if (text[i] != '-') {
      return std::nullopt;
    }
  }
  return decode_hex(hex);
}

}  // namespace

JtiDigests jti_digests(std::string_view jti) {
  JtiDigests digests;
  digests.text = sha256(jti);
  if (const auto uuid = uuid_bytes(jti)) digests.uuid = sha256(std::string(1, '\0') + *uuid);
  return digests;
}

// ---- signatures

namespace {

struct Parts {
  std::string_view header;
  std::string_view claims;
  std::string_view signed_text;  // header and claims, as presented
  Digest signature;
};

// Returns nullopt unless the token has three parts, the last of which has a signature's size.
std::optional<Parts> split(std::string_view token) {
  const std::size_t first = token.find('.');
  if (first == std::string_view::npos) return std::nullopt;
  const std::size_t second = token.find('.', first + 1);
  if (second == std::string_view::npos) return std::nullopt;
  auto signature = decode_base64url(token.substr(second + 1));  // refuses a third dot
  if (!signature) return std::nullopt;
  Parts parts{token.substr(0, first), token.substr(first + 1, second - first - 1),
              token.substr(0, second), Digest{}};
  const bool fits = signature->size() == sizeof parts.signature.bytes;
  if (fits) std::memcpy(parts.signature.bytes.data(), signature->data(), signature->size());
  OPENSSL_cleanse(signature->data(), signature->size());
  if (!fits) return std::nullopt;
  return parts;
}

// True if the header names HS256 and requires no extension (`crit`).
bool is_hs256(std::string_view encoded_header) {
  const auto header = decode_base64url(encoded_header);
  if (!header) return false;
  std::array<Member, 2> members{Member{"alg"}, Member{"crit"}};
  const auto& [alg, crit] = members;
  return read_members(*header, members) && alg.kind == Member::Kind::kText && alg.text == "HS256" &&
         crit.kind == Member::Kind::kAbsent;
}

}  // namespace

void Hs256Key::open(std::span<const std::string_view> tokens,
                    std::span<std::optional<std::string>> claims) const {
  assert(claims.size() >= tokens.size());
  std::vector<std::size_t> whose;
  std::vector<Parts> parts;
  std::vector<std::string_view> signed_texts;
  // No reallocation, so that one wipe covers all elements.
  parts.reserve(tokens.size());
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    claims[i].reset();
    const auto found = split(tokens[i]);
    if (!found) continue;
    whose.push_back(i);
    parts.push_back(*found);
    signed_texts.push_back(found->signed_text);
  }
  if (parts.empty()) return;
  std::vector<Digest> signatures(parts.size());
  hmac_.digest(signed_texts, signatures);
  for (std::size_t i = 0; i < parts.size(); ++i) {
    if (parts[i].signature == signatures[i] && is_hs256(parts[i].header)) {
      claims[whose[i]] = decode_base64url(parts[i].claims);
    }
  }
  // The computed signatures matter most: each is a valid signature of text that a caller chose.
  OPENSSL_cleanse(signatures.data(), signatures.size() * sizeof signatures[0]);
  OPENSSL_cleanse(parts.data(), parts.size() * sizeof parts[0]);
}

std::optional<std::string> Hs256Key::open(std::string_view token) const {
  std::optional<std::string> claims;
  open({&token, 1}, {&claims, 1});
  return claims;
}

}  // namespace latchkey
