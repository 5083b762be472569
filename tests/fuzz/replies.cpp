// Replies read by clients, from any server at the socket.
//
// - The decoders in C and in C++ accept the same bytes, and read the same in them.
// - A stream of replies, cut anywhere, gives liblatchkey the same as the whole.
// - There are as many answers as keys, or none: no answer goes to another key.
#include <algorithm>
#include <memory>
#include <optional>

#include "tests/fuzz/fuzz.h"

extern "C" {
#include "client/c/conversation.h"
#include "tests/reference/client_codec.h"
}

namespace {

using namespace latchkey;

std::string text_or_none(const char* text) { return text == nullptr ? "" : text; }

// ---- one `verified` body, read by both

void compare_decoders(const std::string& body) {
  std::vector<DecodedAnswer> in_cpp;
  const DecodeError cpp_error = decode_verified(fuzz::as_bytes(body), in_cpp);
  // The block includes the byte before the body, which the decoder may overwrite, and none after.
  const auto block = std::make_unique<std::uint8_t[]>(body.size() + 1);
  std::copy(body.begin(), body.end(), block.get() + 1);
  static latchkey_answer in_c[LATCHKEY_BATCH_KEYS_MAX];
  std::size_t count = 0;
  const int c_error = lk_decode_verified(block.get() + 1, body.size(), in_c, &count);
  FUZZ_CHECK(c_error == (cpp_error ? static_cast<int>(*cpp_error) : 0));
  if (c_error != 0) return;
  FUZZ_CHECK(count == in_cpp.size());
  for (std::size_t i = 0; i < count; ++i) {
    const DecodedAnswer& cpp = in_cpp[i];
    const latchkey_answer& c = in_c[i];
    FUZZ_CHECK(c.verdict == static_cast<std::uint32_t>(cpp.verdict) && (c.fresh != 0) == cpp.fresh);
    FUZZ_CHECK(c.age_ms == cpp.age_ms);
    FUZZ_CHECK(text_or_none(c.source) == cpp.claims.source);
    FUZZ_CHECK(text_or_none(c.key_id) == cpp.claims.key_id);
    FUZZ_CHECK(text_or_none(c.subject) == cpp.claims.subject);
    FUZZ_CHECK(text_or_none(c.tenant) == cpp.claims.tenant);
    FUZZ_CHECK(text_or_none(c.metadata) == cpp.claims.metadata);
    FUZZ_CHECK((c.scope != nullptr) == cpp.claims.has_scope);
    FUZZ_CHECK(text_or_none(c.scope) == cpp.claims.scope);
    FUZZ_CHECK((c.has_expires != 0) == cpp.claims.expires.has_value());
    FUZZ_CHECK(c.expires == cpp.claims.expires.value_or(0));
  }
}

void compare_error_decoders(const std::string& body) {
  latchkey_error cpp_code{};
  std::string_view cpp_text;
  const DecodeError cpp_error = decode_error(fuzz::as_bytes(body), cpp_code, cpp_text);
  const auto block = std::make_unique<std::uint8_t[]>(body.size() + 1);
  std::copy(body.begin(), body.end(), block.get() + 1);
  std::uint32_t c_code = 0;
  const char* c_text = nullptr;
  const int c_error = lk_decode_error(block.get() + 1, body.size(), &c_code, &c_text);
  FUZZ_CHECK(c_error == (cpp_error ? static_cast<int>(*cpp_error) : 0));
  if (c_error != 0) return;
  FUZZ_CHECK(cpp_code == latchkey_error{} || static_cast<std::uint32_t>(cpp_code) == c_code);
  FUZZ_CHECK(cpp_text == c_text);
}

// ---- a stream of replies

struct Talk {
  Talk() = default;
  ~Talk() { lk_conversation_free(&talk); }
  Talk(const Talk&) = delete;
  Talk& operator=(const Talk&) = delete;
  lk_conversation talk{};
};

void start(lk_conversation& talk, const std::vector<latchkey_type>& types) {
  const latchkey_key key{"k", 1};
  const std::vector<latchkey_key> keys(3, key);
  talk.answers = static_cast<latchkey_answer*>(
      std::calloc(LATCHKEY_BATCH_KEYS_MAX, sizeof(latchkey_answer)));  // lk_conversation_free()'s
  talk.soonest_ms = UINT64_MAX;
  for (std::size_t i = 0; i < types.size(); ++i) {
    lk_request request{};
    request.type = types[i];
    request.question = LATCHKEY_QUESTION_INIT;
    request.keys = keys.data();
    request.count = types[i] == LATCHKEY_VERIFY ? 1 + i % 3 : 1;
    request.timeout_ms = 1;
    FUZZ_CHECK(lk_start(&talk, &request, 1000, nullptr) == 0);
  }
  lk_sent(&talk, lk_buffer_size(&talk.out));
}

std::string told(const latchkey_reply& reply, std::size_t keys) {
  std::string line = std::to_string(reply.type) + " " + std::to_string(reply.failure) + " " +
                     std::to_string(reply.refusal) + " " + text_or_none(reply.text);
  if (reply.type != LATCHKEY_VERIFY) return line;
  FUZZ_CHECK(reply.count == keys);
  for (std::size_t i = 0; i < reply.count; ++i) {
    FUZZ_CHECK(reply.failure == 0 || reply.answers[i].verdict == LATCHKEY_UNAVAILABLE);
    line += "|" + std::to_string(reply.answers[i].verdict) + text_or_none(reply.answers[i].subject);
  }
  return line;
}

std::vector<std::string> hear(const std::vector<latchkey_type>& types, std::string_view replies,
                              const std::vector<std::size_t>& pieces) {
  Talk mine;
  start(mine.talk, types);
  std::vector<std::string> lines;
  const auto take = [&] {
    latchkey_reply reply{};
    while (lk_take(&mine.talk, &reply)) lines.push_back(told(reply, 1 + lines.size() % 3));
  };
  for (std::size_t piece = 0; !replies.empty() && !mine.talk.lost; ++piece) {
    std::size_t count = replies.size();
    if (piece < pieces.size()) count = std::min(count, pieces[piece]);
    std::uint8_t* to = lk_buffer_reserve(&mine.talk.in, count);
    FUZZ_CHECK(to != nullptr);
    std::copy_n(replies.data(), count, to);
    mine.talk.in.end += count;
    replies.remove_prefix(count);
    take();
  }
  lk_lose(&mine.talk);
  take();
  FUZZ_CHECK(lines.size() == types.size());
  return lines;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  FuzzedDataProvider input(data, size);
  const std::vector<std::size_t> pieces = fuzz::pieces_from(input);
  std::vector<latchkey_type> types(input.ConsumeIntegralInRange<std::size_t>(0, 4));
  for (latchkey_type& type : types) {
    type = input.PickValueInArray({LATCHKEY_VERIFY, LATCHKEY_VERIFY, LATCHKEY_WHY, LATCHKEY_SYNC,
                                   LATCHKEY_PING, LATCHKEY_STATUS});
  }
  std::string stream;
  for (auto frames = input.ConsumeIntegralInRange<int>(0, 5); frames > 0; --frames) {
    stream += fuzz::frame_from(input, 300);
  }
  const std::string rest = input.ConsumeRemainingBytesAsString();
  compare_decoders(rest);
  compare_error_decoders(rest);
  stream += rest;
  FUZZ_CHECK(hear(types, stream, pieces) == hear(types, stream, {}));
  return 0;
}
