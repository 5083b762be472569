// Decodes requests and encodes replies. Pure: no socket, no clock, no allocation when decoding a
// request.
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
#include "protocol/cursor.h"
#include "protocol/frame_buffer.h"
#include "protocol/out_buffer.h"

namespace latchkey {

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

}  // namespace latchkey
