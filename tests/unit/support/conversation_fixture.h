// The conversation of one connection with a worker of three sources: bytes in, bytes out. No
// socket, and a clock that stands still.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/wire_names.h"
#include "tests/reference/client_codec.h"
#include "tests/unit/support/frames.h"
#include "tests/unit/support/helpers.h"
#include "tests/unit/support/turn.h"
#include "tests/unit/support/verifier_fixture.h"

namespace latchkey::test {

inline constexpr std::string_view kSecret = "a-key-that-must-not-outlive-its-answer";

// ---- requests

inline VerifyTerms terms(const std::string& source = "") {
  VerifyTerms terms;
  terms.source = source;
  return terms;
}
inline VerifyTerms bare_terms() {
  VerifyTerms terms;
  terms.want_claims = false;
  return terms;
}

inline std::string verify(std::uint64_t id, const std::vector<std::string_view>& keys,
                          const VerifyTerms& demanded = {}) {
  OutBuffer out;
  encode_verify(out, id, demanded, keys);
  return text_of(out);
}
inline std::string why(std::uint64_t id, std::string_view key, const VerifyTerms& demanded = {}) {
  OutBuffer out;
  encode_why(out, id, demanded, key);
  return text_of(out);
}
inline std::string frame(int type, std::uint64_t id, std::string_view body = {}) {
  std::string bytes = ping(id) + std::string(body);
  bytes[1] = static_cast<char>(type);
  store_le<std::uint32_t>(reinterpret_cast<std::uint8_t*>(bytes.data()) + 4,
                          static_cast<std::uint32_t>(bytes.size()));
  return bytes;
}
inline std::string with_byte(std::string bytes, std::size_t at, int value) {
  bytes[at] = static_cast<char>(value);
  return bytes;
}

// ---- replies, one line each

inline std::string describe_claims(const Claims& claims) {
  std::string text;
  const auto add = [&](const char* name, std::string_view value, bool there) {
    if (there) text += std::string(" ") + name + "=" + std::string(value);
  };
  add("source", claims.source, !claims.source.empty());
  add("id", claims.key_id, !claims.key_id.empty());
  add("sub", claims.subject, !claims.subject.empty());
  add("tenant", claims.tenant, !claims.tenant.empty());
  add("scope", claims.scope, claims.has_scope);
  if (claims.expires) add("exp", std::to_string(*claims.expires), true);
  add("meta", claims.metadata, !claims.metadata.empty());
  return text;
}

inline std::string describe_body(const FrameHeader& header, Bytes body) {
  std::vector<DecodedAnswer> answers;
  std::string_view text;
  latchkey_error code{};
  std::uint64_t waited_us = 0;
  std::string line;
  switch (header.type) {
    case LATCHKEY_PONG: return body.empty() ? "pong" : "bad pong";
    case LATCHKEY_STATUS_REPLY: return "status " + std::string(as_text(body));
    case LATCHKEY_WHY_REPLY: return "why " + std::string(as_text(body));
    case LATCHKEY_SYNCED: return decode_synced(body, waited_us) ? "bad synced" : "synced";
    case LATCHKEY_ERROR:
      if (decode_error(body, code, text) || text != error_sentence(code)) return "bad error";
      return std::string("error ") + error_name(code);
    case LATCHKEY_VERIFIED:
      if (decode_verified(body, answers)) return "bad verified";
      for (const DecodedAnswer& answer : answers) {
        line += (line.empty() ? "" : ", ") + std::string(verdict_name(answer.verdict)) +
                (answer.fresh ? "" : " old") + describe_claims(answer.claims);
      }
      return line;
    default: return "unknown type";
  }
}

inline std::vector<std::string> describe(std::string_view replies) {
  std::vector<std::string> lines;
  while (!replies.empty()) {
    FrameHeader header{};
    const Bytes bytes = as_bytes(replies);
    if (bytes.size() < LATCHKEY_HEADER_BYTES ||
        parse_header(bytes.first<LATCHKEY_HEADER_BYTES>(), LATCHKEY_REPLY_BYTES_MAX, header) ||
        header.length > bytes.size()) {
      lines.emplace_back("broken frame");
      break;
    }
    const Exact body(bytes.subspan(LATCHKEY_HEADER_BYTES, header.length - LATCHKEY_HEADER_BYTES));
    lines.push_back(std::to_string(header.request_id) + ": " + describe_body(header, body.bytes()));
    replies.remove_prefix(header.length);
  }
  return lines;
}

// ---- one worker with three sources

inline Rights everything() {
  return {.sources = 0b111, .all_sources = true, .reasons = true, .metadata = true};
}

class ConversationTest : public VerifierTest {
 protected:
  ConversationTest() {
    context_.verifier = &verifier_;
    context_.reader = &reader_;
    context_.stats = &stats_;
    context_.clock = [this] {
      ++clock_readings_;
      return now_;
    };
    context_.status_json = [](const Rights&) { return std::make_shared<const std::string>("{}"); };
    const ScopeSet* scopes = in_a_.scopes().intern({"read", "write"});
    RecordFacts good = row("17", "good");
    good.subject = "42";
    good.tenant = "7";
    good.metadata = "{\"plan\":1}";
    good.scopes = scopes;
    good.expires_us = kRealUs + 1'500'000;
    in_a_.upsert(good);
    in_a_.upsert(row("18", "revoked", RowState::kRevoked));
    in_a_.upsert(row("19", "disabled", RowState::kDisabled));
    in_a_.upsert(row("20", "deleted", RowState::kDeleted));
    RecordFacts expired = row("21", "expired");
    expired.expires_us = kRealUs;
    in_a_.upsert(expired);
    RecordFacts early = row("22", "early");
    early.not_before_us = kRealUs + 1;
    in_a_.upsert(early);
    in_b_.upsert(row("in b", "only b"));
  }

  struct Heard {
    std::string replies;
    bool closed = false;
    std::vector<std::uint32_t> syncs;  // their timeouts
  };

  // Sends the bytes in pieces of these sizes (the last piece is the rest), as a session would.
  Heard say(const std::string& bytes, const Rights& rights = everything(),
            const std::vector<std::size_t>& pieces = {}) {
    FrameBuffer in(LATCHKEY_REQUEST_BYTES_MAX);
    Conversation conversation(rights);
    Heard heard;
    std::size_t at = 0;
    for (std::size_t piece = 0; at < bytes.size() && !heard.closed; ++piece) {
      const auto room = in.writable();
      std::size_t count = std::min(bytes.size() - at, room.size());
      if (piece < pieces.size()) count = std::min(count, pieces[piece]);
      std::memcpy(room.data(), bytes.data() + at, count);
      in.commit(count);
      at += count;
      answer(conversation, in, heard);
    }
    return heard;
  }
  void answer(Conversation& conversation, FrameBuffer& in, Heard& heard) {
    using Next = Conversation::Next;
    for (Next next = Next::kWrite; next != Next::kRead && !heard.closed;) {
      OutBuffer out;
      next = turn(conversation, in, out);
      if (next == Next::kSync) {
        heard.syncs.push_back(conversation.sync().timeout_ms);
        encode_synced(out, conversation.sync().request_id, 0);
      }
      heard.closed = next == Next::kClose;
      heard.replies += text_of(out);
    }
  }
  Conversation::Next turn(Conversation& conversation, FrameBuffer& in, OutBuffer& out) {
    return test::turn(conversation, in, out, context_, batch_);
  }
  std::vector<std::string> replies_to(const std::string& bytes,
                                      const Rights& rights = everything()) {
    return describe(say(bytes, rights).replies);
  }

  Quiescence::Reader reader_{quiescence_};
  WorkerStats stats_;
  WorkerContext context_;
  Batch batch_;
  int clock_readings_ = 0;
};

}  // namespace latchkey::test
