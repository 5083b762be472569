// Encodes and decodes messages. Pure: no socket, no clock, no allocation when decoding a request.
//
// Decoders return the first violated rule; decoded values point into the frame. Trailing bytes are
// an error, because ignoring them could change the sender's meaning. PROTOCOL.md describes every
// layout; wire.h defines the numbers.
#pragma once

#include <cassert>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "base/claims.h"
#include "latchkey/wire.h"
#include "protocol/frame_buffer.h"

namespace latchkey {

using DecodeError = std::optional<latchkey_error>;

// A sequence of length-prefixed items whose bounds a decoder has already checked.
template <typename Length>
class ItemList {
 public:
  class Iterator {
   public:
    explicit Iterator(const std::uint8_t* at) : at_(at) {}
    std::string_view operator*() const {
      return {reinterpret_cast<const char*>(at_ + sizeof(Length)), load_le<Length>(at_)};
    }
    Iterator& operator++() {
      at_ += sizeof(Length) + load_le<Length>(at_);
      return *this;
    }
    bool operator!=(const Iterator& other) const { return at_ != other.at_; }

   private:
    const std::uint8_t* at_;
  };

  ItemList() = default;
  ItemList(const std::uint8_t* first, const std::uint8_t* end, std::size_t count)
      : first_(first), end_(end), count_(count) {}
  [[nodiscard]] Iterator begin() const { return Iterator(first_); }
  [[nodiscard]] Iterator end() const { return Iterator(end_); }
  [[nodiscard]] std::size_t size() const { return count_; }
  [[nodiscard]] bool empty() const { return count_ == 0; }

 private:
  const std::uint8_t* first_ = nullptr;
  const std::uint8_t* end_ = nullptr;
  std::size_t count_ = 0;
};
using ScopeList = ItemList<std::uint8_t>;
using KeyList = ItemList<std::uint16_t>;

// ---- requests, decoded by the daemon

struct VerifyRequest {
  std::uint16_t flags = 0;  // latchkey_verify_flag
  std::uint32_t max_age_ms = 0;
  std::string_view source;  // empty: every source the caller may use
  ScopeList all_scopes;     // the key must hold all of these
  ScopeList any_scopes;     // unless empty, the key must hold at least one of these
  KeyList keys;             // never empty; single keys may be empty or too long
};

[[nodiscard]] DecodeError decode_verify(Bytes body, VerifyRequest& request);
// The body of a `verify` request with exactly one key and no flags.
[[nodiscard]] DecodeError decode_why(Bytes body, VerifyRequest& request);
[[nodiscard]] DecodeError decode_empty(Bytes body);  // ping, status
[[nodiscard]] DecodeError decode_sync(Bytes body, std::uint32_t& timeout_ms);

// ---- output buffer

// Grows by doubling. clear() keeps at most kKept bytes: typical replies need no allocation, and one
// large reply does not enlarge its connection for ever.
class OutBuffer {
 public:
  // Appends `count` uninitialised bytes; invalidates pointers from earlier calls.
  std::uint8_t* grow(std::size_t count);
  void append(Bytes bytes);
  static constexpr std::size_t kKept = std::size_t{64} << 10;
  void clear();
  [[nodiscard]] std::size_t capacity() const { return capacity_; }
  [[nodiscard]] std::size_t size() const { return size_; }
  [[nodiscard]] std::uint8_t* data() { return bytes_.get(); }
  [[nodiscard]] Bytes bytes() const { return {bytes_.get(), size_}; }

 private:
  std::unique_ptr<std::uint8_t[]> bytes_;
  std::size_t size_ = 0;
  std::size_t capacity_ = 0;
};

// ---- replies, encoded by the daemon

// Writes one `verified` reply: construct, add() exactly `count` times, finish().
class VerifiedWriter {
 public:
  VerifiedWriter(OutBuffer& out, std::uint64_t request_id, std::size_t count);
  // `claim_parts` are encoded claims, at most LATCHKEY_CLAIMS_BYTES_MAX in total.
  void add(latchkey_verdict verdict, std::uint8_t flags, std::uint32_t age_ms,
           std::span<const Bytes> claim_parts);
  void finish();

 private:
  OutBuffer& out_;
  std::size_t start_;
};

void encode_pong(OutBuffer& out, std::uint64_t request_id);
void encode_status_reply(OutBuffer& out, std::uint64_t request_id, std::string_view json);
void encode_synced(OutBuffer& out, std::uint64_t request_id, std::uint64_t waited_us);
// The caller keeps `json` within LATCHKEY_REPLY_BYTES_MAX (asserted).
void encode_why_reply(OutBuffer& out, std::uint64_t request_id, std::string_view json);
// Truncates the text to LATCHKEY_ERROR_TEXT_BYTES_MAX and makes it printable.
void encode_error(OutBuffer& out, std::uint64_t request_id, latchkey_error code,
                  std::string_view text);

// ---- requests, encoded by clients

struct VerifyTerms {
  bool want_claims = true;
  bool want_metadata = false;
  std::uint32_t max_age_ms = LATCHKEY_MAX_AGE_ANY;
  std::string source;
  std::vector<std::string> all_scopes;
  std::vector<std::string> any_scopes;
};

// Size of a request with these terms before its keys; each key adds 2 + its length.
[[nodiscard]] std::size_t verify_overhead(const VerifyTerms& terms);
// The caller keeps within the limits of wire.h (asserted).
void encode_verify(OutBuffer& out, std::uint64_t request_id, const VerifyTerms& terms,
                   std::span<const std::string_view> keys);
void encode_ping(OutBuffer& out, std::uint64_t request_id);
void encode_status(OutBuffer& out, std::uint64_t request_id);
void encode_sync(OutBuffer& out, std::uint64_t request_id, std::uint32_t timeout_ms);
// Ignores want_claims and want_metadata: an explanation always names the key's owner.
void encode_why(OutBuffer& out, std::uint64_t request_id, const VerifyTerms& terms,
                std::string_view key);

// ---- replies, decoded by clients

struct Claims {
  std::string_view source, key_id, subject, tenant, scope, metadata;
  bool has_scope = false;  // distinguishes an empty set of scopes from no scope claim
  std::optional<std::int64_t> expires;
};

struct Answer {
  latchkey_verdict verdict = LATCHKEY_UNAVAILABLE;
  bool fresh = false;
  std::uint32_t age_ms = 0;
  Claims claims;
};

[[nodiscard]] DecodeError decode_verified(Bytes body, std::vector<Answer>& answers);
[[nodiscard]] DecodeError decode_synced(Bytes body, std::uint64_t& waited_us);
[[nodiscard]] DecodeError decode_error(Bytes body, latchkey_error& code, std::string_view& text);

}  // namespace latchkey
