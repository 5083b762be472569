// JSON Web Tokens, from any caller.
//
// - A token is opened only if an independent reading of RFC 7515 finds it signed, with HS256 in a
//   header without further demands; and then its claims are the signed ones.
// - A token that the key has signed is opened, with any claims.
// - The claims that are read equal those found by a complete JSON parser.
#include <openssl/hmac.h>

#include <array>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>

#include "base/encoding.h"
#include "keys/jwt.h"
#include "tests/fuzz/fuzz.h"
#include "tests/unit/support/tokens.h"

namespace {

using namespace latchkey;
using nlohmann::json;

constexpr std::string_view kSecret = "a secret of thirty-two bytes, yes";

std::string hmac(std::string_view text) {
  std::array<unsigned char, 32> digest{};
  unsigned length = 0;
  HMAC(EVP_sha256(), kSecret.data(), static_cast<int>(kSecret.size()),
       reinterpret_cast<const unsigned char*>(text.data()), text.size(), digest.data(), &length);
  return {reinterpret_cast<const char*>(digest.data()), length};
}

// The number of times that a member stands on the outermost level: a tree keeps only the last. (If
// its name stands in the text once, it may also stand deeper, or not be a name.)
std::size_t count_of(std::string_view text, std::string_view name) {
  if (text.find(name) == text.rfind(name) && text.find('\\') == text.npos) {
    return text.find(name) == text.npos ? 0 : 1;
  }
  std::size_t count = 0;
  const auto look = [&](int depth, json::parse_event_t event, const json& value) {
    count += event == json::parse_event_t::key && depth == 1 && value == name ? 1 : 0;
    return true;
  };
  (void)json::parse(text, look, false);
  return count;
}

bool is_plain_hs256(std::string_view header) {
  const json tree = json::parse(header, nullptr, false);
  return tree.is_object() && count_of(header, "alg") == 1 && tree.contains("alg") &&
         tree["alg"] == "HS256" && !tree.contains("crit");
}

void check_claims(std::string_view text) {
  const auto claims = read_jwt_claims(text);
  const json tree = json::parse(text, nullptr, false);
  if (!claims) return;
  FUZZ_CHECK(tree.is_object());
  for (const char* name : {"jti", "exp", "nbf"}) FUZZ_CHECK(count_of(text, name) <= 1);
  const auto jti = tree.find("jti");
  const bool has_text = jti != tree.end() && jti->is_string() && *jti != "" &&
                        jti->get<std::string>().find('\0') == std::string::npos;
  FUZZ_CHECK(claims->jti.has_value() == has_text);
  if (has_text) FUZZ_CHECK(*claims->jti == jti->get<std::string>());
  const auto check_time = [&](const char* name, std::int64_t us, std::int64_t none) {
    const auto found = tree.find(name);
    if (found == tree.end() || found->is_null()) {
      FUZZ_CHECK(us == none);
      return;
    }
    FUZZ_CHECK(found->is_number());
    const auto seconds = found->get<double>();
    FUZZ_CHECK(seconds <= 7'258'118'400.0);
    if (std::abs(seconds) < 9e12) {
      FUZZ_CHECK(std::abs(static_cast<double>(us) / 1e6 - seconds) <=
                 1e-5 + std::abs(seconds) / 1e9);
    }
    // A negative time is never read as a positive one, nor a time in range as an absent one.
    if (seconds < 0) FUZZ_CHECK(us <= 0);
    if (us == none && seconds < 9e12 && seconds > -9e12) FUZZ_CHECK(false);
  };
  check_time("exp", claims->times.expires_us, kNeverExpires);
  check_time("nbf", claims->times.not_before_us, kAlwaysValid);
}

void check_opened(std::string_view token, const std::optional<std::string>& claims) {
  if (!claims) return;
  const std::size_t first = token.find('.'), second = token.rfind('.');
  FUZZ_CHECK(first != token.npos && first != second);
  const auto header = decode_base64url(token.substr(0, first));
  const auto signature = decode_base64url(token.substr(second + 1));
  FUZZ_CHECK(header && is_plain_hs256(*header));
  FUZZ_CHECK(signature && *signature == hmac(token.substr(0, second)));
  FUZZ_CHECK(decode_base64url(token.substr(first + 1, second - first - 1)) == claims);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const Hs256Key key(fuzz::as_bytes(kSecret));
  FuzzedDataProvider input(data, size);
  const std::string header = input.ConsumeRandomLengthString(200);
  const std::string rest = input.ConsumeRemainingBytesAsString();
  check_claims(rest);
  check_opened(rest, key.open(rest));
  const std::string signed_token = test::token(kSecret, rest, header);
  const auto claims = key.open(signed_token);
  FUZZ_CHECK(claims.has_value() == is_plain_hs256(header));
  if (claims) FUZZ_CHECK(*claims == rest);
  check_opened(signed_token, claims);
  const std::string ours = test::token(kSecret, rest);
  FUZZ_CHECK(key.open(ours) == rest);
  // One character of the signature is changed.
  std::string forged = ours;
  char& last = forged[forged.size() - 2 - size % 40];
  last = last == 'A' ? 'B' : 'A';
  FUZZ_CHECK(!key.open(forged));
  return 0;
}
