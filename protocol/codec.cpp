#include "protocol/codec.h"

#include <algorithm>

#include "base/printable.h"

namespace latchkey {
namespace {

// Reads from the front and remembers the first error. After an error every read is a no-op, so one
// check at the end suffices.
class Cursor {
 public:
  explicit Cursor(Bytes bytes) : at_(bytes.data()), end_(bytes.data() + bytes.size()) {}

  template <typename T>
  T integer() {
    if (!has(sizeof(T))) return T{};
    const T value = load_le<T>(at_);
    at_ += sizeof(T);
    return value;
  }

  std::string_view text(std::size_t length) {
    if (!has(length)) return {};
    const std::string_view value(reinterpret_cast<const char*>(at_), length);
    at_ += length;
    return value;
  }

  // Checks the bounds of `count` items once, so that ItemList need not.
  template <typename Length>
  ItemList<Length> items(std::size_t count) {
    const std::uint8_t* first = at_;
    for (std::size_t i = 0; i < count && !error_; ++i) text(integer<Length>());
    return error_ ? ItemList<Length>() : ItemList<Length>(first, at_, count);
  }

  void refuse(latchkey_error code) {
    if (!error_) error_ = code;
  }
  [[nodiscard]] bool at_end() const { return at_ == end_; }
  [[nodiscard]] bool failed() const { return error_.has_value(); }

  // Every decoder ends with this call.
  DecodeError finish() {
    if (!error_ && at_ != end_) error_ = LATCHKEY_TRAILING;
    return error_;
  }

 private:
  bool has(std::size_t count) {
    if (!error_ && static_cast<std::size_t>(end_ - at_) < count) error_ = LATCHKEY_TRUNCATED;
    return !error_;
  }

  const std::uint8_t* at_;
  const std::uint8_t* end_;
  DecodeError error_;
};

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

std::size_t begin_frame(OutBuffer& out, latchkey_type type, std::uint64_t request_id) {
  const std::size_t start = out.size();
  std::uint8_t* header = out.grow(LATCHKEY_HEADER_BYTES);
  header[0] = LATCHKEY_VERSION;
  header[1] = static_cast<std::uint8_t>(type);
  store_le<std::uint16_t>(header + 2, 0);
  store_le<std::uint32_t>(header + 4, LATCHKEY_HEADER_BYTES);
  store_le<std::uint64_t>(header + 8, request_id);
  return start;
}

void end_frame(OutBuffer& out, std::size_t start) {
  store_le<std::uint32_t>(out.data() + start + 4, static_cast<std::uint32_t>(out.size() - start));
}

template <typename T>
void put(OutBuffer& out, T value) {
  store_le<T>(out.grow(sizeof(T)), value);
}

template <typename Length>
void put_item(OutBuffer& out, std::string_view item) {
  put(out, static_cast<Length>(item.size()));
  out.append({reinterpret_cast<const std::uint8_t*>(item.data()), item.size()});
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

// ---- output buffer

std::uint8_t* OutBuffer::grow(std::size_t count) {
  if (capacity_ - size_ < count) {
    const std::size_t capacity = std::max({capacity_ * 2, size_ + count, std::size_t{4096}});
    auto bytes = std::make_unique_for_overwrite<std::uint8_t[]>(capacity);
    if (size_ > 0) std::memcpy(bytes.get(), bytes_.get(), size_);
    bytes_ = std::move(bytes);
    capacity_ = capacity;
  }
  std::uint8_t* at = bytes_.get() + size_;
  size_ += count;
  return at;
}

void OutBuffer::clear() {
  size_ = 0;
  if (capacity_ <= kKept) return;
  bytes_.reset();
  capacity_ = 0;
}

void OutBuffer::append(Bytes bytes) {
  if (!bytes.empty()) std::memcpy(grow(bytes.size()), bytes.data(), bytes.size());
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

DecodeError decode_verified(Bytes body, std::vector<Answer>& answers) {
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
    Answer& answer = answers.emplace_back();
    const Bytes claim_bytes(reinterpret_cast<const std::uint8_t*>(claims.data()), claims.size());
    if (const DecodeError error = decode_claims(claim_bytes, answer.claims)) return error;
    if (verdict >= LATCHKEY_VERDICTS || (flags & ~LATCHKEY_ANSWER_FLAGS_ALL) != 0) {
      // A newer daemon's verdict or flag has an unknown meaning: this key gets no answer.
      answer = Answer{};
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
