#include "tests/reference/client_codec.h"

#include "protocol/frame_writer.h"

namespace latchkey {

// ---- requests, encoded by clients

std::size_t verify_overhead(const VerifyTerms& terms) {
  std::size_t bytes = LATCHKEY_HEADER_BYTES + LATCHKEY_VERIFY_FIXED_BYTES + terms.source.size();
  for (const auto* list : {&terms.all_scopes, &terms.any_scopes}) {
    for (const std::string& scope : *list) bytes += 1 + scope.size();
  }
  return bytes;
}

namespace {

// The common encoding of verify and why, which differ only in type and flags.
void encode_question(OutBuffer& out, latchkey_type type, std::uint64_t request_id, int flags,
                     const VerifyTerms& terms, std::span<const std::string_view> keys) {
  assert(!keys.empty() && keys.size() <= LATCHKEY_BATCH_KEYS_MAX);
  assert(terms.source.size() <= LATCHKEY_SOURCE_BYTES_MAX);
  assert(terms.all_scopes.size() <= LATCHKEY_SCOPES_MAX);
  assert(terms.any_scopes.size() <= LATCHKEY_SCOPES_MAX);
  const std::size_t start = begin_frame(out, type, request_id);
  put(out, static_cast<std::uint16_t>(flags));
  put(out, static_cast<std::uint8_t>(terms.source.size()));
  put(out, static_cast<std::uint8_t>(terms.all_scopes.size()));
  put(out, static_cast<std::uint8_t>(terms.any_scopes.size()));
  put(out, std::uint8_t{0});
  put(out, static_cast<std::uint16_t>(keys.size()));
  put(out, terms.max_age_ms);
  out.append({reinterpret_cast<const std::uint8_t*>(terms.source.data()), terms.source.size()});
  for (const auto* list : {&terms.all_scopes, &terms.any_scopes}) {
    for (const std::string& scope : *list) put_item<std::uint8_t>(out, scope);
  }
  for (const std::string_view key : keys) put_item<std::uint16_t>(out, key);
  end_frame(out, start);
  assert(out.size() - start <= LATCHKEY_REQUEST_BYTES_MAX);
}

}  // namespace

void encode_verify(OutBuffer& out, std::uint64_t request_id, const VerifyTerms& terms,
                   std::span<const std::string_view> keys) {
  const int flags = (terms.want_claims ? LATCHKEY_WANT_CLAIMS : 0) |
                    (terms.want_metadata ? LATCHKEY_WANT_METADATA : 0);
  encode_question(out, LATCHKEY_VERIFY, request_id, flags, terms, keys);
}

void encode_why(OutBuffer& out, std::uint64_t request_id, const VerifyTerms& terms,
                std::string_view key) {
  encode_question(out, LATCHKEY_WHY, request_id, 0, terms, {&key, 1});
}

void encode_ping(OutBuffer& out, std::uint64_t request_id) {
  begin_frame(out, LATCHKEY_PING, request_id);
}

void encode_status(OutBuffer& out, std::uint64_t request_id) {
  begin_frame(out, LATCHKEY_STATUS, request_id);
}

void encode_sync(OutBuffer& out, std::uint64_t request_id, std::uint32_t timeout_ms) {
  const std::size_t start = begin_frame(out, LATCHKEY_SYNC, request_id);
  put(out, timeout_ms);
  end_frame(out, start);
}

// ---- replies, decoded by clients

namespace {

DecodeError decode_claims(Bytes bytes, Claims& claims) {
  Cursor cursor(bytes);
  while (!cursor.failed() && !cursor.at_end()) {
    const auto tag = cursor.integer<std::uint8_t>();
    const std::string_view value = cursor.text(cursor.integer<std::uint16_t>());
    if (cursor.failed()) break;
    const bool is_text = tag >= LATCHKEY_CLAIM_SOURCE && tag <= LATCHKEY_CLAIM_METADATA &&
                         tag != LATCHKEY_CLAIM_EXPIRES;
    if (is_text && value.find('\0') != value.npos) return LATCHKEY_BAD_LENGTH;
    switch (tag) {
      case LATCHKEY_CLAIM_SOURCE: claims.source = value; break;
      case LATCHKEY_CLAIM_KEY_ID: claims.key_id = value; break;
      case LATCHKEY_CLAIM_SUBJECT: claims.subject = value; break;
      case LATCHKEY_CLAIM_TENANT: claims.tenant = value; break;
      case LATCHKEY_CLAIM_METADATA: claims.metadata = value; break;
      case LATCHKEY_CLAIM_SCOPE:
        claims.scope = value;
        claims.has_scope = true;
        break;
      case LATCHKEY_CLAIM_EXPIRES:
        if (value.size() != sizeof(std::int64_t)) return LATCHKEY_BAD_LENGTH;
        claims.expires = load_le<std::int64_t>(reinterpret_cast<const std::uint8_t*>(value.data()));
        break;
      default: break;  // a claim of a newer daemon: skip it by its length
    }
  }
  return cursor.finish();
}

}  // namespace

DecodeError decode_verified(Bytes body, std::vector<DecodedAnswer>& answers) {
  Cursor cursor(body);
  const auto count = cursor.integer<std::uint16_t>();
  if (cursor.integer<std::uint16_t>() != 0) cursor.refuse(LATCHKEY_BAD_RESERVED);
  if (count > LATCHKEY_BATCH_KEYS_MAX) cursor.refuse(LATCHKEY_BAD_COUNT);
  answers.clear();
  for (std::size_t i = 0; i < count && !cursor.failed(); ++i) {
    const auto verdict = cursor.integer<std::uint8_t>();
    const auto flags = cursor.integer<std::uint8_t>();
    const auto claims_length = cursor.integer<std::uint16_t>();
    const auto age_ms = cursor.integer<std::uint32_t>();
    const std::string_view claims = cursor.text(claims_length);
    if (cursor.failed()) break;
    DecodedAnswer& answer = answers.emplace_back();
    const Bytes claim_bytes(reinterpret_cast<const std::uint8_t*>(claims.data()), claims.size());
    if (const DecodeError error = decode_claims(claim_bytes, answer.claims)) return error;
    if (verdict >= LATCHKEY_VERDICTS || (flags & ~LATCHKEY_ANSWER_FLAGS_ALL) != 0) {
      // A newer daemon's verdict or flag has an unknown meaning: this key gets no answer.
      answer = DecodedAnswer{};
      answer.verdict = LATCHKEY_UNAVAILABLE;
      answer.age_ms = LATCHKEY_AGE_UNKNOWN;
      continue;
    }
    answer.verdict = static_cast<latchkey_verdict>(verdict);
    answer.fresh = (flags & LATCHKEY_FRESH) != 0;
    answer.age_ms = age_ms;
  }
  return cursor.finish();
}

DecodeError decode_synced(Bytes body, std::uint64_t& waited_us) {
  Cursor cursor(body);
  waited_us = cursor.integer<std::uint64_t>();
  return cursor.finish();
}

DecodeError decode_error(Bytes body, latchkey_error& code, std::string_view& text) {
  Cursor cursor(body);
  const auto number = cursor.integer<std::uint16_t>();
  // A newer version's code becomes zero, which has no name. An enum without a fixed underlying type
  // (wire.h is also C) must not hold values outside its range; the text still explains the error.
  code = number < LATCHKEY_ERRORS_END ? static_cast<latchkey_error>(number) : latchkey_error{};
  text = cursor.text(cursor.integer<std::uint16_t>());
  if (text.find('\0') != text.npos) cursor.refuse(LATCHKEY_BAD_LENGTH);
  return cursor.finish();
}

}  // namespace latchkey
