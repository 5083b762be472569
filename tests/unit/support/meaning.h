// Converts frames to and from the `field: value` lines of tests/vectors/wire.txt, by the tested
// functions.
#pragma once

#include <algorithm>
#include <cctype>
#include <map>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "base/wire_names.h"
#include "protocol/codec.h"
#include "tests/reference/client_codec.h"
#include "tests/unit/support/helpers.h"
#include "tests/unit/support/vectors.h"

namespace latchkey::test {

inline const std::map<std::string, latchkey_type> kTypes = {
    {"verify", LATCHKEY_VERIFY},       {"ping", LATCHKEY_PING},
    {"status", LATCHKEY_STATUS},       {"sync", LATCHKEY_SYNC},
    {"verified", LATCHKEY_VERIFIED},   {"pong", LATCHKEY_PONG},
    {"synced", LATCHKEY_SYNCED},       {"status_reply", LATCHKEY_STATUS_REPLY},
    {"error", LATCHKEY_ERROR},         {"why", LATCHKEY_WHY},
    {"why_reply", LATCHKEY_WHY_REPLY},
};

inline const std::map<std::string, latchkey_claim> kClaims = {
    {"source", LATCHKEY_CLAIM_SOURCE},     {"key_id", LATCHKEY_CLAIM_KEY_ID},
    {"subject", LATCHKEY_CLAIM_SUBJECT},   {"tenant", LATCHKEY_CLAIM_TENANT},
    {"scope", LATCHKEY_CLAIM_SCOPE},       {"expires", LATCHKEY_CLAIM_EXPIRES},
    {"metadata", LATCHKEY_CLAIM_METADATA},
};

// A name of wire.h -> its number, by the function that maps numbers to names.
template <typename Enum>
Enum number_of(const std::string& name, const char* (*name_of)(Enum), int count) {
  for (int i = 0; i < count; ++i) {
    if (name == name_of(static_cast<Enum>(i))) return static_cast<Enum>(i);
  }
  throw std::runtime_error("no such name: " + name);
}

inline std::string age_text(std::uint32_t ms, const char* extreme) {
  return ms == 0xFFFFFFFFu ? extreme : std::to_string(ms);
}

inline std::uint32_t age_number(const std::string& text) {
  return std::isdigit(static_cast<unsigned char>(text[0])) != 0
             ? static_cast<std::uint32_t>(std::stoul(text))
             : 0xFFFFFFFFu;
}

// ---- bytes -> meaning

inline void read_question(const VerifyRequest& request, std::vector<Field>& meaning) {
  meaning.emplace_back("max_age_ms", age_text(request.max_age_ms, "any"));
  meaning.emplace_back("source", request.source);
  for (const auto scope : request.all_scopes) meaning.emplace_back("all_scope", scope);
  for (const auto scope : request.any_scopes) meaning.emplace_back("any_scope", scope);
  for (const auto key : request.keys) meaning.emplace_back("key", escaped(key));
}

inline DecodeError read_verify(Bytes body, std::vector<Field>& meaning) {
  VerifyRequest request;
  if (const DecodeError error = decode_verify(body, request)) return error;
  std::string flags = (request.flags & LATCHKEY_WANT_CLAIMS) != 0 ? "claims" : "";
  if ((request.flags & LATCHKEY_WANT_METADATA) != 0) {
    flags += flags.empty() ? "metadata" : " metadata";
  }
  meaning.emplace_back("flags", flags);
  read_question(request, meaning);
  return {};
}

inline DecodeError read_why(Bytes body, std::vector<Field>& meaning) {
  VerifyRequest request;
  if (const DecodeError error = decode_why(body, request)) return error;
  read_question(request, meaning);
  return {};
}

inline DecodeError read_verified(Bytes body, std::vector<Field>& meaning) {
  std::vector<DecodedAnswer> answers;
  if (const DecodeError error = decode_verified(body, answers)) return error;
  for (const DecodedAnswer& answer : answers) {
    meaning.emplace_back("answer", std::string(verdict_name(answer.verdict)) +
                                       (answer.fresh ? " fresh " : " old ") +
                                       age_text(answer.age_ms, "unknown"));
    const auto text = [&](const char* name, std::string_view value, bool present) {
      if (present) meaning.emplace_back(name, escaped(value));
    };
    const Claims& claims = answer.claims;
    text("source", claims.source, !claims.source.empty());
    text("key_id", claims.key_id, !claims.key_id.empty());
    text("subject", claims.subject, !claims.subject.empty());
    text("tenant", claims.tenant, !claims.tenant.empty());
    text("scope", claims.scope, claims.has_scope);
    if (claims.expires) meaning.emplace_back("expires", std::to_string(*claims.expires));
    text("metadata", claims.metadata, !claims.metadata.empty());
  }
  return {};
}

inline DecodeError read_body(latchkey_type type, Bytes body, std::vector<Field>& meaning) {
  std::uint32_t timeout_ms = 0;
  std::uint64_t waited_us = 0;
  latchkey_error code{};
  std::string_view text;
  DecodeError error;
  switch (type) {
    case LATCHKEY_VERIFY: return read_verify(body, meaning);
    case LATCHKEY_WHY: return read_why(body, meaning);
    case LATCHKEY_VERIFIED: return read_verified(body, meaning);
    case LATCHKEY_PING:
    case LATCHKEY_STATUS:
    case LATCHKEY_PONG: return decode_empty(body);
    case LATCHKEY_SYNC:
      error = decode_sync(body, timeout_ms);
      meaning.emplace_back("timeout_ms", std::to_string(timeout_ms));
      return error;
    case LATCHKEY_SYNCED:
      error = decode_synced(body, waited_us);
      meaning.emplace_back("waited_us", std::to_string(waited_us));
      return error;
    case LATCHKEY_STATUS_REPLY:
    case LATCHKEY_WHY_REPLY: meaning.emplace_back("json", as_text(body)); return {};
    case LATCHKEY_ERROR:
      error = decode_error(body, code, text);
      meaning.emplace_back("code", error_name(code));
      meaning.emplace_back("text", text);
      return error;
  }
  return LATCHKEY_BAD_TYPE;
}

// Reads a whole frame, as the reader of that side does.
inline DecodeError read_frame(const Exact& frame, bool daemon, std::vector<Field>& meaning) {
  FrameHeader header{};
  const auto start = frame.bytes().first<LATCHKEY_HEADER_BYTES>();
  const std::size_t length_max = daemon ? LATCHKEY_REQUEST_BYTES_MAX : LATCHKEY_REPLY_BYTES_MAX;
  if (const DecodeError error = parse_header(start, length_max, header)) return error;
  if (header.length != frame.bytes().size()) return LATCHKEY_BAD_LENGTH;
  for (const auto& [name, type] : kTypes) {
    if (type != header.type || daemon != ((type & 0x80) == 0)) continue;
    meaning.emplace_back("type", name);
    meaning.emplace_back("request_id", std::to_string(header.request_id));
    return read_body(type, frame.body(), meaning);
  }
  return LATCHKEY_BAD_TYPE;
}

// ---- meaning -> bytes

class Meaning {
 public:
  explicit Meaning(const std::vector<Field>& fields) : fields_(fields) {}
  [[nodiscard]] std::vector<std::string> all(const std::string& name) const {
    std::vector<std::string> values;
    for (const Field& field : fields_) {
      if (field.first == name) values.push_back(unescaped(field.second));
    }
    return values;
  }
  [[nodiscard]] std::string one(const std::string& name) const { return all(name).at(0); }
  [[nodiscard]] std::uint64_t number(const std::string& name) const {
    return std::stoull(one(name));
  }

 private:
  const std::vector<Field>& fields_;
};

inline VerifyTerms terms_of(const Meaning& meaning) {
  VerifyTerms terms;
  terms.max_age_ms = age_number(meaning.one("max_age_ms"));
  terms.source = meaning.one("source");
  terms.all_scopes = meaning.all("all_scope");
  terms.any_scopes = meaning.all("any_scope");
  return terms;
}

inline void write_verify(OutBuffer& out, std::uint64_t id, const Meaning& meaning) {
  VerifyTerms terms = terms_of(meaning);
  terms.want_claims = meaning.one("flags").find("claims") != std::string::npos;
  terms.want_metadata = meaning.one("flags").find("metadata") != std::string::npos;
  const std::vector<std::string> texts = meaning.all("key");
  const std::vector<std::string_view> keys(texts.begin(), texts.end());
  encode_verify(out, id, terms, keys);

  std::size_t expected = verify_overhead(terms);
  for (const std::string_view key : keys) expected += 2 + key.size();
  EXPECT_EQ(out.size(), expected) << "verify_overhead() must tell the truth";
}

inline std::vector<std::uint8_t> claim_bytes(const Field& field) {
  const std::string value = unescaped(field.second);
  std::vector<std::uint8_t> bytes(LATCHKEY_CLAIM_BYTES + std::max<std::size_t>(8, value.size()));
  const latchkey_claim tag = kClaims.at(field.first);
  const std::uint8_t* end = tag == LATCHKEY_CLAIM_EXPIRES
                                ? put_claim(bytes.data(), tag, std::int64_t{std::stoll(value)})
                                : put_claim(bytes.data(), tag, value);
  bytes.resize(static_cast<std::size_t>(end - bytes.data()));
  return bytes;
}

inline void write_verified(OutBuffer& out, std::uint64_t id, const std::vector<Field>& fields) {
  VerifiedWriter writer(out, id, Meaning(fields).all("answer").size());
  for (std::size_t i = 0; i < fields.size();) {
    if (fields[i].first != "answer") {
      ++i;
      continue;
    }
    std::istringstream words(fields[i].second);
    std::string verdict, freshness, age;
    words >> verdict >> freshness >> age;
    std::vector<std::vector<std::uint8_t>> claims;
    for (++i; i < fields.size() && fields[i].first != "answer"; ++i) {
      claims.push_back(claim_bytes(fields[i]));
    }
    const std::vector<Bytes> parts(claims.begin(), claims.end());
    writer.add(number_of(verdict, verdict_name, LATCHKEY_VERDICTS),
               freshness == "fresh" ? LATCHKEY_FRESH : 0, age_number(age), parts);
  }
  writer.finish();
}

inline void write_frame(OutBuffer& out, const std::vector<Field>& fields) {
  const Meaning meaning(fields);
  const std::uint64_t id = meaning.number("request_id");
  switch (kTypes.at(meaning.one("type"))) {
    case LATCHKEY_VERIFY: return write_verify(out, id, meaning);
    case LATCHKEY_VERIFIED: return write_verified(out, id, fields);
    case LATCHKEY_WHY: return encode_why(out, id, terms_of(meaning), meaning.one("key"));
    case LATCHKEY_WHY_REPLY: return encode_why_reply(out, id, meaning.one("json"));
    case LATCHKEY_PING: return encode_ping(out, id);
    case LATCHKEY_STATUS: return encode_status(out, id);
    case LATCHKEY_PONG: return encode_pong(out, id);
    case LATCHKEY_SYNC:
      return encode_sync(out, id, static_cast<std::uint32_t>(meaning.number("timeout_ms")));
    case LATCHKEY_SYNCED: return encode_synced(out, id, meaning.number("waited_us"));
    case LATCHKEY_STATUS_REPLY: return encode_status_reply(out, id, meaning.one("json"));
    case LATCHKEY_ERROR:
      return encode_error(out, id, number_of(meaning.one("code"), error_name, LATCHKEY_ERRORS_END),
                          meaning.one("text"));
  }
}

}  // namespace latchkey::test
