#include "protocol/codec.h"

#include <algorithm>

#include "base/printable.h"
#include "protocol/frame_writer.h"

namespace latchkey {
namespace {

bool is_source_name(std::string_view name) {
  return std::ranges::all_of(name, [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
           c == '-' || c == '.';
  });
}

bool is_scope(std::string_view scope) {
  return !scope.empty() && std::ranges::all_of(scope, [](char c) {
    return static_cast<unsigned char>(c) > 0x20 && c != 0x7F;
  });
}

}  // namespace

// ---- requests, decoded by the daemon

DecodeError decode_verify(Bytes body, VerifyRequest& request) {
  Cursor cursor(body);
  request.flags = cursor.integer<std::uint16_t>();
  const auto source_length = cursor.integer<std::uint8_t>();
  const auto all_count = cursor.integer<std::uint8_t>();
  const auto any_count = cursor.integer<std::uint8_t>();
  const auto reserved = cursor.integer<std::uint8_t>();
  const auto key_count = cursor.integer<std::uint16_t>();
  request.max_age_ms = cursor.integer<std::uint32_t>();
  if (cursor.failed()) return cursor.finish();

  if ((request.flags & ~LATCHKEY_VERIFY_FLAGS_ALL) != 0) return LATCHKEY_BAD_FLAGS;
  if (reserved != 0) return LATCHKEY_BAD_RESERVED;
  if (source_length > LATCHKEY_SOURCE_BYTES_MAX) return LATCHKEY_BAD_SOURCE;
  if (all_count > LATCHKEY_SCOPES_MAX || any_count > LATCHKEY_SCOPES_MAX || key_count == 0 ||
      key_count > LATCHKEY_BATCH_KEYS_MAX) {
    return LATCHKEY_BAD_COUNT;
  }

  request.source = cursor.text(source_length);
  if (!is_source_name(request.source)) cursor.refuse(LATCHKEY_BAD_SOURCE);
  request.all_scopes = cursor.items<std::uint8_t>(all_count);
  request.any_scopes = cursor.items<std::uint8_t>(any_count);
  for (const ScopeList* list : {&request.all_scopes, &request.any_scopes}) {
    for (const std::string_view scope : *list) {
      if (!is_scope(scope)) cursor.refuse(LATCHKEY_BAD_SCOPE);
    }
  }
  request.keys = cursor.items<std::uint16_t>(key_count);
  return cursor.finish();
}

DecodeError decode_why(Bytes body, VerifyRequest& request) {
  if (const DecodeError error = decode_verify(body, request)) return error;
  if (request.flags != 0) return LATCHKEY_BAD_FLAGS;
  if (request.keys.size() != 1) return LATCHKEY_BAD_COUNT;
  return {};
}

DecodeError decode_empty(Bytes body) { return Cursor(body).finish(); }

DecodeError decode_sync(Bytes body, std::uint32_t& timeout_ms) {
  Cursor cursor(body);
  timeout_ms = cursor.integer<std::uint32_t>();
  if (!cursor.failed() && (timeout_ms == 0 || timeout_ms > LATCHKEY_SYNC_TIMEOUT_MS_MAX)) {
    cursor.refuse(LATCHKEY_BAD_TIMEOUT);
  }
  return cursor.finish();
}

// ---- replies, encoded by the daemon

VerifiedWriter::VerifiedWriter(OutBuffer& out, std::uint64_t request_id, std::size_t count)
    : out_(out), start_(begin_frame(out, LATCHKEY_VERIFIED, request_id)) {
  put(out_, static_cast<std::uint16_t>(count));
  put(out_, std::uint16_t{0});
}

void VerifiedWriter::add(latchkey_verdict verdict, std::uint8_t flags, std::uint32_t age_ms,
                         std::span<const Bytes> claim_parts) {
  std::size_t claims_length = 0;
  for (const Bytes part : claim_parts) claims_length += part.size();
  assert(claims_length <= LATCHKEY_CLAIMS_BYTES_MAX);
  std::uint8_t* at = out_.grow(LATCHKEY_ANSWER_FIXED_BYTES + claims_length);
  at[0] = static_cast<std::uint8_t>(verdict);
  at[1] = flags;
  store_le<std::uint16_t>(at + 2, static_cast<std::uint16_t>(claims_length));
  store_le<std::uint32_t>(at + 4, age_ms);
  at += LATCHKEY_ANSWER_FIXED_BYTES;
  for (const Bytes part : claim_parts) {
    if (part.empty()) continue;
    std::memcpy(at, part.data(), part.size());
    at += part.size();
  }
}

void VerifiedWriter::finish() { end_frame(out_, start_); }

void encode_pong(OutBuffer& out, std::uint64_t request_id) {
  begin_frame(out, LATCHKEY_PONG, request_id);
}

namespace {

void encode_text(OutBuffer& out, latchkey_type type, std::uint64_t request_id,
                 std::string_view text) {
  const std::size_t start = begin_frame(out, type, request_id);
  out.append({reinterpret_cast<const std::uint8_t*>(text.data()), text.size()});
  end_frame(out, start);
  assert(out.size() - start <= LATCHKEY_REPLY_BYTES_MAX);
}

}  // namespace

void encode_status_reply(OutBuffer& out, std::uint64_t request_id, std::string_view json) {
  encode_text(out, LATCHKEY_STATUS_REPLY, request_id, json);
}

void encode_why_reply(OutBuffer& out, std::uint64_t request_id, std::string_view json) {
  encode_text(out, LATCHKEY_WHY_REPLY, request_id, json);
}

void encode_synced(OutBuffer& out, std::uint64_t request_id, std::uint64_t waited_us) {
  const std::size_t start = begin_frame(out, LATCHKEY_SYNCED, request_id);
  put(out, waited_us);
  end_frame(out, start);
}

void encode_error(OutBuffer& out, std::uint64_t request_id, latchkey_error code,
                  std::string_view text) {
  const std::size_t start = begin_frame(out, LATCHKEY_ERROR, request_id);
  put(out, static_cast<std::uint16_t>(code));
  // Truncate first: printable() then replaces a code point that the cut splits.
  put_item<std::uint16_t>(out, printable(text.substr(0, LATCHKEY_ERROR_TEXT_BYTES_MAX)));
  end_frame(out, start);
}

}  // namespace latchkey
