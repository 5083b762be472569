// liblatchkey's codec against the table of vectors: the exact bytes of each request, and the
// result for every reply, good, bad, truncated or too long. All bytes are in heap blocks of
// exactly their size, so that AddressSanitizer detects each read or write past them.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cctype>
#include <memory>
#include <string>
#include <vector>

extern "C" {
#include "client/c/codec.h"
}
#include "tests/unit/support/vectors.h"

namespace latchkey {
namespace {

using test::Field;
using test::is_request;
using test::test_name;
using test::Vector;
using test::vectors_that;

std::vector<std::string> all(const Vector& vector, const std::string& name) {
  std::vector<std::string> values;
  for (const Field& field : vector.meaning) {
    if (field.first == name) values.push_back(test::unescaped(field.second));
  }
  return values;
}

// ---- requests

const std::map<std::string, latchkey_type> kRequests = {{"verify", LATCHKEY_VERIFY},
                                                        {"ping", LATCHKEY_PING},
                                                        {"status", LATCHKEY_STATUS},
                                                        {"sync", LATCHKEY_SYNC},
                                                        {"why", LATCHKEY_WHY}};

class Request : public testing::TestWithParam<Vector> {};
INSTANTIATE_TEST_SUITE_P(Client, Request, testing::ValuesIn(vectors_that([](const Vector& vector) {
                           return vector.good() && is_request(vector);
                         })),
                         test_name);

TEST_P(Request, IsWrittenAsTheTableSays) {
  const Vector& vector = GetParam();
  lk_request request = {};
  request.type = kRequests.at(all(vector, "type").at(0));
  request.question = LATCHKEY_QUESTION_INIT;
  const auto keys = all(vector, "key"), all_scopes = all(vector, "all_scope"),
             any_scopes = all(vector, "any_scope"), sources = all(vector, "source");
  std::vector<latchkey_key> key_list;
  for (const std::string& key : keys) key_list.push_back({key.data(), key.size()});
  std::vector<const char*> all_list, any_list;
  for (const std::string& scope : all_scopes) all_list.push_back(scope.c_str());
  for (const std::string& scope : any_scopes) any_list.push_back(scope.c_str());
  if (!sources.empty()) {
    const std::string age = all(vector, "max_age_ms").at(0);
    request.question.max_age_ms =
        age == "any" ? LATCHKEY_MAX_AGE_ANY : static_cast<std::uint32_t>(std::stoul(age));
    if (!sources[0].empty()) request.question.source = sources[0].c_str();
    request.question.all_scopes = all_list.data();
    request.question.all_scopes_count = all_list.size();
    request.question.any_scopes = any_list.data();
    request.question.any_scopes_count = any_list.size();
    request.keys = key_list.data();
    request.count = key_list.size();
  }
  for (const std::string& flags : all(vector, "flags")) {
    request.question.flags =
        (flags.find("claims") != std::string::npos ? std::uint32_t{LATCHKEY_WANT_CLAIMS} : 0u) |
        (flags.find("metadata") != std::string::npos ? std::uint32_t{LATCHKEY_WANT_METADATA} : 0u);
  }
  for (const std::string& timeout : all(vector, "timeout_ms")) {
    request.timeout_ms = static_cast<std::uint32_t>(std::stoul(timeout));
  }
  ASSERT_EQ(lk_request_problem(&request), nullptr) << lk_request_problem(&request);
  lk_buffer out = {};
  const std::size_t length =
      lk_encode(&out, &request, std::stoull(all(vector, "request_id").at(0)));
  EXPECT_THAT(std::vector(lk_buffer_front(&out), lk_buffer_front(&out) + length),
              testing::ElementsAreArray(vector.frame));
  lk_buffer_free(&out);
}

// ---- replies

struct Read {
  int error = 0;
  std::vector<Field> meaning;
};

std::string age_text(std::uint32_t ms) {
  return ms == LATCHKEY_AGE_UNKNOWN ? "unknown" : std::to_string(ms);
}

void tell(const latchkey_answer& answer, std::vector<Field>& meaning) {
  meaning.emplace_back("answer", std::string(latchkey_verdict_name(answer.verdict)) +
                                     (answer.fresh != 0 ? " fresh " : " old ") +
                                     age_text(answer.age_ms));
  const std::pair<const char*, const char*> texts[] = {
      {"source", answer.source}, {"key_id", answer.key_id}, {"subject", answer.subject},
      {"tenant", answer.tenant}, {"scope", answer.scope},   {"metadata", answer.metadata}};
  for (const auto& [name, text] : texts) {
    if (text != nullptr) meaning.emplace_back(name, test::escaped(text));
    if (name == std::string("scope") && answer.has_expires != 0) {
      meaning.emplace_back("expires", std::to_string(answer.expires));
    }
  }
}

Read read_frame(const std::vector<std::uint8_t>& frame) {
  const auto bytes = std::make_unique<std::uint8_t[]>(frame.size());
  std::ranges::copy(frame, bytes.get());
  Read read;
  lk_header header;
  read.error = lk_decode_header(bytes.get(), &header);
  if (read.error != 0) return read;
  std::uint8_t* body = bytes.get() + LATCHKEY_HEADER_BYTES;
  const std::size_t length = frame.size() - LATCHKEY_HEADER_BYTES;
  const std::map<int, const char*> names = {
      {LATCHKEY_VERIFIED, "verified"},         {LATCHKEY_PONG, "pong"},
      {LATCHKEY_STATUS_REPLY, "status_reply"}, {LATCHKEY_SYNCED, "synced"},
      {LATCHKEY_WHY_REPLY, "why_reply"},       {LATCHKEY_ERROR, "error"}};
  read.meaning = {{"type", names.at(header.type)},
                  {"request_id", std::to_string(header.request_id)}};
  std::vector<latchkey_answer> answers(LATCHKEY_BATCH_KEYS_MAX);
  std::size_t count = 0;
  std::uint64_t waited_us = 0;
  std::uint32_t code = 0;
  const char* text = nullptr;
  switch (header.type) {
    case LATCHKEY_VERIFIED:
      read.error = lk_decode_verified(body, length, answers.data(), &count);
      for (std::size_t i = 0; i < count && read.error == 0; ++i) tell(answers[i], read.meaning);
      break;
    case LATCHKEY_PONG: read.error = lk_decode_empty(length); break;
    case LATCHKEY_SYNCED:
      read.error = lk_decode_synced(body, length, &waited_us);
      read.meaning.emplace_back("waited_us", std::to_string(waited_us));
      break;
    case LATCHKEY_ERROR:
      read.error = lk_decode_error(body, length, &code, &text);
      read.meaning.emplace_back("code", latchkey_refusal_name(code));
      read.meaning.emplace_back("text", read.error == 0 ? text : "");
      break;
    default:
      read.error = lk_decode_text(body, length, &text);
      read.meaning.emplace_back("json", read.error == 0 ? text : "");
  }
  return read;
}

class Reply : public testing::TestWithParam<Vector> {};
INSTANTIATE_TEST_SUITE_P(Client, Reply, testing::ValuesIn(vectors_that([](const Vector& vector) {
                           return vector.good() && !is_request(vector);
                         })),
                         test_name);

TEST_P(Reply, MeansWhatTheTableSays) {
  const Read read = read_frame(GetParam().frame);
  EXPECT_EQ(read.error, 0) << latchkey_refusal_name(static_cast<std::uint32_t>(read.error));
  EXPECT_EQ(read.meaning, GetParam().meaning);
}

bool is_text(const Vector& vector) { return !all(vector, "json").empty(); }

TEST_P(Reply, IsTruncatedWhereverItsBodyIsCut) {
  const std::vector<std::uint8_t>& frame = GetParam().frame;
  for (std::size_t size = LATCHKEY_HEADER_BYTES; size < frame.size() && !is_text(GetParam());
       ++size) {
    const Read read =
        read_frame({frame.begin(), frame.begin() + static_cast<std::ptrdiff_t>(size)});
    ASSERT_EQ(read.error, LATCHKEY_TRUNCATED) << size << " of " << frame.size() << " bytes";
  }
}

TEST_P(Reply, IsTrailingWithOneByteMore) {
  if (is_text(GetParam())) return;
  std::vector<std::uint8_t> longer = GetParam().frame;
  longer.push_back(0);
  EXPECT_EQ(read_frame(longer).error, LATCHKEY_TRAILING);
}

class BadReply : public testing::TestWithParam<Vector> {};
INSTANTIATE_TEST_SUITE_P(Client, BadReply, testing::ValuesIn(vectors_that([](const Vector& vector) {
                           return !vector.good() && vector.reader == "client";
                         })),
                         test_name);

TEST_P(BadReply, IsRefusedByItsName) {
  const int error = read_frame(GetParam().frame).error;
  EXPECT_EQ(latchkey_refusal_name(static_cast<std::uint32_t>(error)), GetParam().error);
}

// ---- special cases of C

TEST(ClientCodec, ATextWithAZeroByteIsNotCutAtIt) {
  // subject "admin\0x", which as a C string would be "admin"
  std::vector<std::uint8_t> body = {1, 0, 0, 0, 0,   1,   10,  0,   0,   0, 0,
                                    0, 3, 7, 0, 'a', 'd', 'm', 'i', 'n', 0, 'x'};
  latchkey_answer answer;
  std::size_t count = 0;
  EXPECT_EQ(lk_decode_verified(body.data(), body.size(), &answer, &count), LATCHKEY_BAD_LENGTH);
}

TEST(ClientCodec, SaysWhatCannotBeAsked) {
  const std::string long_scope(256, 's');
  const char* scopes[] = {"read", "two words"};
  const char* too_long[] = {long_scope.c_str()};
  const latchkey_key key = {"k", 1}, missing = {nullptr, 1};
  const auto problem = [&](auto&& change) {
    lk_request request = {};
    request.type = LATCHKEY_VERIFY;
    request.question = LATCHKEY_QUESTION_INIT;
    request.keys = &key;
    request.count = 1;
    change(request);
    return std::string(lk_request_problem(&request) == nullptr ? "" : lk_request_problem(&request));
  };
  EXPECT_EQ(problem([](lk_request&) {}), "");
  EXPECT_THAT(problem([](lk_request& r) { r.question = {}; }), testing::HasSubstr("INIT"));
  EXPECT_THAT(problem([](lk_request& r) { r.question.flags = 4; }), testing::HasSubstr("flag"));
  EXPECT_THAT(problem([](lk_request& r) { r.question.source = "a b"; }),
              testing::HasSubstr("source"));
  EXPECT_THAT(problem([&](lk_request& r) {
                r.question.all_scopes = scopes;
                r.question.all_scopes_count = 2;
              }),
              testing::HasSubstr("space"));
  EXPECT_THAT(problem([&](lk_request& r) {
                r.question.any_scopes = too_long;
                r.question.any_scopes_count = 1;
              }),
              testing::HasSubstr("255"));
  EXPECT_THAT(problem([&](lk_request& r) {
                r.question.any_scopes = scopes;
                r.question.any_scopes_count = 33;
              }),
              testing::HasSubstr("32"));
  EXPECT_THAT(problem([](lk_request& r) { r.count = 0; }), testing::HasSubstr("256"));
  EXPECT_THAT(problem([](lk_request& r) { r.count = 257; }), testing::HasSubstr("256"));
  EXPECT_THAT(problem([&](lk_request& r) { r.keys = &missing; }), testing::HasSubstr("not there"));
  EXPECT_THAT(problem([](lk_request& r) { r.type = LATCHKEY_SYNC; }), testing::HasSubstr("60000"));
}

TEST(ClientCodec, CutsABatchWhereTheFrameIsFull) {
  const std::string huge(100000, 'k');  // sent as 4097 bytes, which is malformed too
  const std::vector<latchkey_key> keys(300, latchkey_key{huge.data(), huge.size()});
  const latchkey_question question = LATCHKEY_QUESTION_INIT;
  const std::size_t fit = lk_keys_that_fit(&question, keys.data(), keys.size());
  EXPECT_EQ(fit, (65536u - 16 - 12) / (2 + 4097));
  const std::vector<latchkey_key> small(300, latchkey_key{"k", 1});
  EXPECT_EQ(lk_keys_that_fit(&question, small.data(), small.size()), 256u);
}

}  // namespace
}  // namespace latchkey
