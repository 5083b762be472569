// The claims of a token, and the tokens that a secret opens.
#include "keys/jwt.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "base/encoding.h"
#include "tests/unit/support/base64.h"
#include "tests/unit/support/helpers.h"
#include "tests/unit/support/tokens.h"

namespace latchkey {
namespace {

using test::as_bytes;
using test::base64;
using test::signed_text;
using test::token;

const std::string kSecret(32, 's'), kOther(32, 't');
const Hs256Key kKey(as_bytes(kSecret));

// ---- claims

TEST(JwtClaims, HaveTimes) {
  const struct {
    const char* claims;
    std::int64_t expires_us, not_before_us;
  } cases[] = {
      {"{}", kNeverExpires, kAlwaysValid},
      {R"({"sub":"7","iat":5})", kNeverExpires, kAlwaysValid},
      {R"({"exp":1700000000})", 1'700'000'000'000'000, kAlwaysValid},
      {R"({"exp":1700000000,"nbf":1600000000})", 1'700'000'000'000'000, 1'600'000'000'000'000},
      {R"({"nbf":1600000000})", kNeverExpires, 1'600'000'000'000'000},
      {R"({"exp":0})", 0, kAlwaysValid},
      {R"({"exp":-1})", -1'000'000, kAlwaysValid},
      {R"({"exp":1.5})", 1'500'000, kAlwaysValid},
      {R"({"exp":-1.5,"nbf":-0.0000005})", -1'500'000, -1},  // rounded down
      {R"({"exp":1.7e9})", 1'700'000'000'000'000, kAlwaysValid},
      {R"({"exp":7258118400})", 7'258'118'400'000'000, kAlwaysValid},  // 2200
      {R"({"exp":-1e300})", kAlwaysValid, kAlwaysValid},               // has always been expired
      {R"({"exp":-9223372036854775808})", kAlwaysValid, kAlwaysValid},
      {R"({"exp":null,"nbf":null})", kNeverExpires, kAlwaysValid},
      {R"({"a":{"exp":1},"b":[{"nbf":"x"}],"exp":2})", 2'000'000, kAlwaysValid},  // not top-level
      {R"({"sub":1,"sub":2,"exp":3})", 3'000'000, kAlwaysValid},  // twice, but never read
      {R"({"\u0065xp":4})", 4'000'000, kAlwaysValid},
      {R"({"EXP":1,"exp ":1,"":1})", kNeverExpires, kAlwaysValid},
      {" {\n\"exp\" : 5 }\t", 5'000'000, kAlwaysValid},
      {R"({"nbf":-1e300})", kNeverExpires, kAlwaysValid},
  };
  for (const auto& c : cases) {
    const auto claims = read_jwt_claims(c.claims);
    ASSERT_TRUE(claims.has_value()) << c.claims;
    EXPECT_EQ(claims->times.expires_us, c.expires_us) << c.claims;
    EXPECT_EQ(claims->times.not_before_us, c.not_before_us) << c.claims;
  }
}

TEST(JwtClaims, AreNotGuessedAt) {
  for (const char* bad :
       {"", "[]", "7", "\"x\"", "null", "{", R"({"exp":1)", R"({"exp":"1700000000"})",
        R"({"exp":true})", R"({"exp":[1]})", R"({"exp":{}})", R"({"nbf":"soon"})",
        R"({"exp":1700000000,"nbf":"x"})", R"({"exp":1e999})", R"({"exp":NaN})", R"({"exp":01})",
        R"({"exp":1} x)", "{\"exp\":\xFF}", R"({"exp":1}{})", R"({"exp":1},)", R"([{"exp":1}])",
        R"({"exp":1,})", R"({exp:1})", "{\"a\":\"\xC3\"}", "// x\n{}", R"({"exp":Infinity})",
        // Later than the year 2200: milliseconds, perhaps.
        R"({"exp":7258118401})", R"({"exp":1700000000000})", R"({"exp":9223372036854775807})",
        R"({"exp":18446744073709551615})", R"({"exp":1e300})", R"({"nbf":1e300})",
        R"({"nbf":1700000000000})", R"({"exp":-})", R"({"exp":0x10})", R"({"exp":1.})",
        // twice, which is ambiguous
        R"({"exp":1,"exp":1})", R"({"exp":1,"\u0065xp":2})", R"({"nbf":null,"nbf":2})",
        R"({"jti":"a","exp":1,"jti":"b"})", R"({"exp":{"a":1},"exp":2})"}) {
    EXPECT_FALSE(read_jwt_claims(bad).has_value()) << bad;
  }
}

// The parser's memory grows by one bit per level.
TEST(JwtClaims, MayBeAsDeepAsTheyLike) {
  for (const std::size_t depth : {std::size_t{4'000}, std::size_t{1'000'000}}) {
    const std::string open(depth, '['), close(depth, ']');
    EXPECT_FALSE(read_jwt_claims(open).has_value());
    EXPECT_FALSE(read_jwt_claims("{\"a\":" + open).has_value());
    const auto claims = read_jwt_claims("{\"a\":" + open + close + ",\"exp\":7}");
    ASSERT_TRUE(claims.has_value());
    EXPECT_EQ(claims->times.expires_us, 7'000'000);
    std::string objects;
    for (std::size_t i = 0; i < depth; ++i) objects += "{\"exp\":";
    EXPECT_FALSE(read_jwt_claims(objects).has_value());
  }
}

TEST(JwtClaims, HaveAJtiIfItIsATextThatAColumnCanHold) {
  const struct {
    const char* claims;
    std::optional<std::string> jti;
  } cases[] = {
      {R"({"jti":"a"})", "a"},
      {R"({"exp":1,"jti":" A b "})", " A b "},
      {R"({"jti":"\u00fc\ud83d\ude00\n\"\\"})", "ü😀\n\"\\"},
      {R"({"jti":"ü"})", "ü"},
      {"{}", std::nullopt},
      {R"({"jti":""})", std::nullopt},
      {R"({"jti":"\u0000"})", std::nullopt},
      {R"({"jti":"a\u0000b"})", std::nullopt},
      {R"({"jti":null})", std::nullopt},
      {R"({"jti":7})", std::nullopt},
      {R"({"jti":7.5})", std::nullopt},
      {R"({"jti":true})", std::nullopt},
      {R"({"jti":["a"]})", std::nullopt},
      {R"({"jti":{"jti":"a"}})", std::nullopt},
      {R"({"a":{"jti":"a"}})", std::nullopt},
      {R"({"JTI":"a"})", std::nullopt},
  };
  for (const auto& c : cases) {
    const auto claims = read_jwt_claims(c.claims);
    ASSERT_TRUE(claims.has_value()) << c.claims;
    EXPECT_EQ(claims->jti, c.jti) << c.claims;
  }
  EXPECT_FALSE(read_jwt_claims(R"({"jti":"\ud800"})").has_value()) << "half a character";
}

TEST(JtiDigest, IsOfTheTextAndOfTheUuid) {
  const std::string lower = "0f8fad5b-d9cb-469f-a165-70867728950e";
  const std::string upper = "0F8FAD5B-D9CB-469F-A165-70867728950E";
  const std::string bytes("\0\x0f\x8f\xad\x5b\xd9\xcb\x46\x9f\xa1\x65\x70\x86\x77\x28\x95\x0e", 17);
  EXPECT_EQ(jti_digests(lower).text, sha256(lower));
  EXPECT_EQ(jti_digests(upper).text, sha256(upper)) << "a text column compares exactly";
  EXPECT_EQ(jti_digests(lower).uuid, sha256(bytes));
  EXPECT_EQ(jti_digests(upper).uuid, sha256(bytes)) << "a UUID is the same in either case";
  for (const std::string& no_uuid :
       {std::string("a"), lower.substr(1), lower + "0", "{" + lower + "}",
        std::string("0f8fad5bd9cb469fa16570867728950e"), "g" + lower.substr(1),
        std::string("0f8fad5bd-9cb-469f-a165-70867728950e"), " " + lower.substr(1),
        std::string("0f8fad5b-d9cb-469f-a165+70867728950e"), std::string(36, '-')}) {
    EXPECT_FALSE(jti_digests(no_uuid).uuid.has_value()) << no_uuid;
    EXPECT_EQ(jti_digests(no_uuid).text, sha256(no_uuid));
  }
}

// ---- signatures

// RFC 7515 appendix A.1: a header and claims with line breaks, and a secret of 64 bytes.
TEST(Hs256, OpensTheExampleOfTheRfc) {
  const std::string secret = *decode_base64url(
      "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTw"
      "jAzZr1Z9CAow");
  const std::string presented =
      "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9"
      ".eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0"
      "cnVlfQ"
      ".dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
  const Hs256Key key(as_bytes(secret));
  const auto text = key.open(presented);
  EXPECT_EQ(text,
            "{\"iss\":\"joe\",\r\n \"exp\":1300819380,\r\n"
            " \"http://example.com/is_root\":true}");
  const auto claims = read_jwt_claims(*text);
  ASSERT_TRUE(claims.has_value());
  EXPECT_EQ(claims->times.expires_us, 1'300'819'380'000'000);
  EXPECT_FALSE(claims->jti.has_value());
  EXPECT_FALSE(kKey.open(presented).has_value()) << "another secret";
  // The token fails with any single bit changed.
  for (std::size_t at = 0; at < presented.size(); ++at) {
    for (int bit = 0; bit < 8; ++bit) {
      std::string altered = presented;
      altered[at] = static_cast<char>(altered[at] ^ (1 << bit));
      EXPECT_FALSE(key.open(altered).has_value()) << altered;
    }
    EXPECT_FALSE(key.open(presented.substr(0, at)).has_value()) << at;
    EXPECT_FALSE(key.open(presented.substr(at + 1)).has_value()) << at;
  }
}

TEST(Hs256, TakesThreePartsInBase64UrlWithoutPadding) {
  const std::string good = token(kSecret, "{}");
  ASSERT_EQ(kKey.open(good), "{}");
  const std::size_t first = good.find('.'), second = good.rfind('.');
  const std::string header = good.substr(0, first),
                    claims = good.substr(first + 1, second - first - 1),
                    signature = good.substr(second + 1);
  for (const std::string& bad : {std::string(),
                                 std::string("."),
                                 std::string(".."),
                                 std::string("..."),
                                 header,
                                 header + ".",
                                 header + "." + claims,
                                 header + "." + claims + ".",
                                 "." + claims + "." + signature,
                                 header + ".." + signature,
                                 good + ".",
                                 good + "." + signature,
                                 "." + good,
                                 good + "=",
                                 good + " ",
                                 " " + good,
                                 good + "\n",
                                 "Bearer " + good,
                                 header + "=." + claims + "." + signature,
                                 header + "." + claims + "=." + signature,
                                 good + "A",
                                 good.substr(0, good.size() - 1),
                                 header + "." + claims + "." + signature + signature}) {
    EXPECT_FALSE(kKey.open(bad).has_value()) << bad;
  }
}

// The signature's 256 bits leave two spare in its last character: RFC 4648 section 3.5.
TEST(Hs256, TakesOneSpellingOfASignature) {
  const std::string good = token(kSecret, R"({"jti":"a"})");
  int taken = 0;
  for (const char last :
       std::string_view("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")) {
    std::string twin = good;
    twin.back() = last;
    EXPECT_EQ(kKey.open(twin).has_value(), twin == good) << twin;
    taken += kKey.open(twin).has_value() ? 1 : 0;
  }
  EXPECT_EQ(taken, 1);
}

// The signature does not suffice: an issuer that signs unreadable parts is not trusted.
TEST(Hs256, TakesPartsThatItSignedOnlyIfTheyAreBase64Url) {
  const std::string header = base64(R"({"alg":"HS256"})", true, false);
  ASSERT_EQ(kKey.open(signed_text(kSecret, header + ".e30")), "{}");
  for (const std::string& bad :
       {header + ".e31", header + ".e30=", header + ".e3", header + ".{}", header + "=.e30",
        header.substr(1) + ".e30", std::string(".e30"), "\xFF." + header}) {
    EXPECT_FALSE(kKey.open(signed_text(kSecret, bad)).has_value()) << bad;
  }
  EXPECT_EQ(kKey.open(signed_text(kSecret, header + ".")), "") << "empty, which is no JSON";
}

TEST(Hs256, HasItsAlgorithmFromTheConfiguration) {
  for (const char* good :
       {R"({"alg":"HS256"})", R"({"typ":"JWT","alg":"HS256"})", R"({"alg":"HS256","typ":"jwt"})",
        R"({"alg":"HS256","typ":"at+jwt"})", R"({"alg":"HS256","typ":7})",
        R"({"alg":"HS256","kid":"../../etc/passwd","jku":"http://x","jwk":{"k":"x"}})",
        R"({"alg":"\u0048S256"})", " { \"alg\" : \"HS256\" } "}) {
    EXPECT_EQ(kKey.open(token(kSecret, "{}", good)), "{}") << good;
  }
  for (const char* bad :
       {R"({"alg":"none"})", R"({"alg":"None"})", R"({"alg":""})", R"({"alg":"HS384"})",
        R"({"alg":"HS512"})", R"({"alg":"RS256"})", R"({"alg":"ES256"})", R"({"alg":"hs256"})",
        R"({"alg":"HS256 "})", R"({"alg":"HS256\u0000"})", R"({"alg":null})", R"({"alg":256})",
        R"({"alg":["HS256"]})", R"({"alg":{"alg":"HS256"}})", R"({"typ":"JWT"})", "{}",
        R"({"ALG":"HS256"})", R"({"a":{"alg":"HS256"}})",
        // duplicates
        R"({"alg":"none","alg":"HS256"})", R"({"alg":"HS256","alg":"HS256"})",
        R"({"alg":"HS256","\u0061lg":"none"})",
        // critical extensions, all unknown
        R"({"alg":"HS256","crit":["exp"],"exp":1})",
        R"({"alg":"HS256","crit":["b64"],"b64":false})", R"({"alg":"HS256","crit":[]})",
        R"({"alg":"HS256","crit":null})",
        // not a JSON object
        "", "[]", "null", "\"HS256\"", R"(["alg","HS256"])", R"({"alg":"HS256")",
        R"({"alg":"HS256"}x)", R"({"alg":"HS256"}{})", "{\"alg\":\"HS256\",\"a\":\"\xFF\"}"}) {
    EXPECT_FALSE(kKey.open(token(kSecret, "{}", bad)).has_value()) << bad;
  }
  const std::string none =
      base64(R"({"alg":"none"})", true, false) + "." + base64("{}", true, false);
  EXPECT_FALSE(kKey.open(none + ".").has_value());
  EXPECT_FALSE(kKey.open(none).has_value());
}

TEST(Hs256, ReadsNothingThatItDidNotSign) {
  const std::string deep(4'000, '[');
  for (const std::string& part : {deep, base64(std::string(1'400, '['), true, false)}) {
    EXPECT_FALSE(kKey.open(part + "." + part + "." + part).has_value());
    EXPECT_FALSE(kKey.open(signed_text(kSecret, part + "." + part)).has_value()) << "signed";
    EXPECT_FALSE(kKey.open(signed_text(kOther, part + "." + part)).has_value());
  }
}

TEST(Hs256, OpensManyAsOneByOne) {
  test::Random random;
  std::vector<std::string> texts;
  for (std::size_t i = 0; i < 200; ++i) {
    const std::string claims = "{\"jti\":\"" + std::string(random.below(300), 'x') + "\"}";
    switch (random.below(4)) {
      case 0: texts.push_back(token(kOther, claims)); break;
      case 1: texts.push_back("no token"); break;
      default: texts.push_back(token(kSecret, claims));
    }
  }
  const std::vector<std::string_view> tokens(texts.begin(), texts.end());
  for (const std::size_t count : {std::size_t{0}, std::size_t{1}, std::size_t{2}, tokens.size()}) {
    std::vector<std::optional<std::string>> claims(count, "from before");
    kKey.open(std::span(tokens).first(count), claims);
    for (std::size_t i = 0; i < count; ++i) EXPECT_EQ(claims[i], kKey.open(tokens[i])) << i;
  }
}

}  // namespace
}  // namespace latchkey
