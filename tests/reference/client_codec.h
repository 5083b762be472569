// The client's half of the protocol in C++: a second implementation, with which tests and
// benchmarks compare liblatchkey and speak to the daemon's half.
#pragma once

#include <cassert>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "latchkey/wire.h"
#include "protocol/cursor.h"
#include "protocol/out_buffer.h"

namespace latchkey {

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

struct DecodedAnswer {
  latchkey_verdict verdict = LATCHKEY_UNAVAILABLE;
  bool fresh = false;
  std::uint32_t age_ms = 0;
  Claims claims;
};

[[nodiscard]] DecodeError decode_verified(Bytes body, std::vector<DecodedAnswer>& answers);
[[nodiscard]] DecodeError decode_synced(Bytes body, std::uint64_t& waited_us);
[[nodiscard]] DecodeError decode_error(Bytes body, latchkey_error& code, std::string_view& text);

}  // namespace latchkey
