// Requests written by clients.
//
// - The encoders in C and in C++ write the same bytes.
// - The daemon understands a request without a problem by lk_request_problem() as it was meant, and
//   refuses one with a problem (except an empty source, which C refuses sooner).
// - lk_keys_that_fit() is neither too high nor too low.
#include <algorithm>
#include <memory>
#include <optional>

#include "tests/fuzz/fuzz.h"

extern "C" {
#include "client/c/codec.h"
#include "tests/reference/client_codec.h"
}

namespace {

using namespace latchkey;

struct Request {
  latchkey_type type = LATCHKEY_VERIFY;
  std::uint64_t id = 0;
  std::optional<std::string> source;
  std::vector<std::string> all, any, keys;
  bool claims = false, metadata = false;
  std::uint32_t max_age_ms = 0, timeout_ms = 0;
};

// Without zero bytes: this target does not test the end of a C string.
std::string text_from(FuzzedDataProvider& input, std::size_t bytes_max) {
  std::string text = fuzz::short_text(input, bytes_max);
  std::replace(text.begin(), text.end(), '\0', '0');
  return text;
}

Request request_from(FuzzedDataProvider& input) {
  Request request;
  request.type = input.PickValueInArray({LATCHKEY_VERIFY, LATCHKEY_VERIFY, LATCHKEY_WHY,
                                         LATCHKEY_SYNC, LATCHKEY_PING, LATCHKEY_STATUS});
  request.id = input.ConsumeIntegral<std::uint64_t>();
  request.claims = input.ConsumeBool();
  request.metadata = input.ConsumeBool();
  request.max_age_ms = input.ConsumeIntegral<std::uint32_t>();
  request.timeout_ms = input.ConsumeIntegral<std::uint32_t>();
  if (input.ConsumeBool()) request.source = text_from(input, LATCHKEY_SOURCE_BYTES_MAX);
  for (auto* list : {&request.all, &request.any}) {
    // Often few scopes, sometimes too many.
    const auto most = input.ConsumeBool() ? 3 : LATCHKEY_SCOPES_MAX + 1;
    list->resize(input.ConsumeIntegralInRange<std::size_t>(0, static_cast<std::size_t>(most)));
    for (std::string& scope : *list) scope = text_from(input, LATCHKEY_SCOPE_BYTES_MAX);
  }
  request.keys.resize(input.ConsumeIntegralInRange<std::size_t>(0, 4));
  for (std::string& key : request.keys) {
    key = fuzz::short_text(input, 100);
    if (input.ConsumeIntegralInRange<int>(0, 7) == 0) {
      key.resize(input.ConsumeIntegralInRange<std::size_t>(0, LATCHKEY_KEY_BYTES_MAX + 2), 'k');
    }
  }
  // The same key many times: batches at their limits.
  if (!request.keys.empty() && input.ConsumeIntegralInRange<int>(0, 7) == 0) {
    request.keys.resize(input.ConsumeIntegralInRange<std::size_t>(1, LATCHKEY_BATCH_KEYS_MAX + 1),
                        request.keys.front());
  }
  return request;
}

// The C request, and the memory that it points to.
struct InC {
  explicit InC(const Request& from) {
    const auto pointers = [](const std::vector<std::string>& texts) {
      std::vector<const char*> list;
      for (const std::string& text : texts) list.push_back(text.c_str());
      return list;
    };
    all = pointers(from.all);
    any = pointers(from.any);
    for (const std::string& key : from.keys) keys.push_back({key.data(), key.size()});
    latchkey_question question = LATCHKEY_QUESTION_INIT;
    question.source = from.source ? from.source->c_str() : nullptr;
    question.all_scopes = all.data();
    question.all_scopes_count = all.size();
    question.any_scopes = any.data();
    question.any_scopes_count = any.size();
    question.max_age_ms = from.max_age_ms;
    question.flags = (from.claims ? static_cast<std::uint32_t>(LATCHKEY_WANT_CLAIMS) : 0U) |
                     (from.metadata ? static_cast<std::uint32_t>(LATCHKEY_WANT_METADATA) : 0U);
    request = {from.type, question, keys.data(), keys.size(), from.timeout_ms};
  }

  std::vector<const char*> all, any;
  std::vector<latchkey_key> keys;
  lk_request request;
};

// The key, truncated as a client in C sends it.
std::string_view sent(const std::string& key) {
  return std::string_view(key).substr(0, LATCHKEY_KEY_BYTES_MAX + 1);
}

bool is_question(const Request& request) {
  return request.type == LATCHKEY_VERIFY || request.type == LATCHKEY_WHY;
}

VerifyTerms terms_of(const Request& request) {
  VerifyTerms terms;
  terms.want_claims = request.claims;
  terms.want_metadata = request.metadata;
  terms.max_age_ms = request.max_age_ms;
  terms.source = request.source.value_or("");
  terms.all_scopes = request.all;
  terms.any_scopes = request.any;
  return terms;
}

// std::nullopt if the encoder's preconditions do not hold.
std::optional<std::string> in_cpp(const Request& request) {
  OutBuffer out;
  const VerifyTerms terms = terms_of(request);
  const std::vector<std::string_view> keys = [&] {
    std::vector<std::string_view> list;
    for (const std::string& key : request.keys) list.push_back(sent(key));
    return list;
  }();
  if (is_question(request)) {
    std::size_t bytes = verify_overhead(terms);
    for (const std::string_view key : keys) bytes += 2 + key.size();
    if (keys.empty() || keys.size() > LATCHKEY_BATCH_KEYS_MAX ||
        request.all.size() > LATCHKEY_SCOPES_MAX || request.any.size() > LATCHKEY_SCOPES_MAX ||
        bytes > LATCHKEY_REQUEST_BYTES_MAX) {
      return std::nullopt;
    }
  }
  switch (request.type) {
    case LATCHKEY_VERIFY: encode_verify(out, request.id, terms, keys); break;
    case LATCHKEY_WHY:
      if (keys.size() != 1) return std::nullopt;
      encode_why(out, request.id, terms, keys.front());
      break;
    case LATCHKEY_SYNC: encode_sync(out, request.id, request.timeout_ms); break;
    case LATCHKEY_PING: encode_ping(out, request.id); break;
    default: encode_status(out, request.id);
  }
  return std::string(as_text(out.bytes()));
}

std::vector<std::string> listed(const auto& items) {
  std::vector<std::string> list;
  for (const std::string_view item : items) list.emplace_back(item);
  return list;
}

// Whether the daemon understands the request; if so, it must understand it as it was meant.
bool understood(const Request& meant, std::string_view frame) {
  FrameHeader header{};
  const Bytes bytes = fuzz::as_bytes(frame);
  FUZZ_CHECK(
      !parse_header(bytes.first<LATCHKEY_HEADER_BYTES>(), LATCHKEY_REQUEST_BYTES_MAX, header));
  FUZZ_CHECK(header.type == meant.type && header.request_id == meant.id);
  FUZZ_CHECK(header.length == frame.size());
  const Bytes body = bytes.subspan(LATCHKEY_HEADER_BYTES);
  if (meant.type == LATCHKEY_PING || meant.type == LATCHKEY_STATUS) return !decode_empty(body);
  if (meant.type == LATCHKEY_SYNC) {
    std::uint32_t timeout_ms = 0;
    if (decode_sync(body, timeout_ms)) return false;
    FUZZ_CHECK(timeout_ms == meant.timeout_ms);
    return true;
  }
  VerifyRequest request;
  const bool is_why = meant.type == LATCHKEY_WHY;
  if (is_why ? decode_why(body, request) : decode_verify(body, request)) return false;
  FUZZ_CHECK(request.source == meant.source.value_or(""));
  FUZZ_CHECK(request.max_age_ms == meant.max_age_ms);
  FUZZ_CHECK(listed(request.all_scopes) == meant.all);
  FUZZ_CHECK(listed(request.any_scopes) == meant.any);
  FUZZ_CHECK(is_why || (request.flags & LATCHKEY_WANT_CLAIMS) == (meant.claims ? 1 : 0));
  FUZZ_CHECK(is_why || (request.flags & LATCHKEY_WANT_METADATA) == (meant.metadata ? 2 : 0));
  std::size_t i = 0;
  for (const std::string_view key : request.keys) FUZZ_CHECK(key == sent(meant.keys.at(i++)));
  FUZZ_CHECK(i == meant.keys.size());
  return true;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  FuzzedDataProvider input(data, size);
  const Request request = request_from(input);
  const InC c(request);
  const std::optional<std::string> cpp = in_cpp(request);
  const bool no_source = is_question(request) && request.source && request.source->empty();
  if (lk_request_problem(&c.request) != nullptr) {
    FUZZ_CHECK(!cpp || no_source || !understood(request, *cpp));
    return 0;
  }
  lk_buffer out{};
  const std::size_t length = lk_encode(&out, &c.request, request.id);
  const std::string frame(reinterpret_cast<const char*>(lk_buffer_front(&out)), length);
  FUZZ_CHECK(length == lk_buffer_size(&out));
  lk_buffer_free(&out);
  FUZZ_CHECK(cpp && *cpp == frame);
  FUZZ_CHECK(understood(request, frame));
  if (is_question(request)) {
    FUZZ_CHECK(lk_keys_that_fit(&c.request.question, c.keys.data(), c.keys.size()) ==
               c.keys.size());
  }
  return 0;
}
