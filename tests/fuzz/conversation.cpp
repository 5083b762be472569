// The daemon's half of a connection, bytes to bytes.
//
// - A stream cut anywhere gets the same replies as the whole, and ends in the same way.
// - Every reply is one that the client in C accepts.
// - `valid` is given only for a request that contains a valid key.
#include <algorithm>
#include <memory>

#include "tests/fuzz/fuzz.h"
#include "tests/unit/support/three_sources.h"
#include "tests/unit/support/turn.h"

extern "C" {
#include "client/c/codec.h"
}

namespace {

using namespace latchkey;

constexpr std::string_view kGood = "good", kSecond = "2nd";

struct Worker : test::ThreeSources {
  Worker() {
    context.verifier = &verifier_;
    context.reader = &reader;
    context.stats = &stats;
    context.clock = [this] { return now_; };
    context.status_json = [](const Rights&) { return std::make_shared<const std::string>("{}"); };
    RecordFacts good = test::row("17", kGood);
    good.subject = "42";
    good.tenant = "7";
    good.metadata = "{\"plan\":1}";
    good.scopes = in_a_.scopes().intern({"read", "write"});
    good.expires_us = test::kRealUs + 1'500'000;
    in_a_.upsert(good);
    in_a_.upsert(test::row("18", "rev", RowState::kRevoked));
    in_a_.upsert(test::row("19", "dis", RowState::kDisabled));
    in_a_.upsert(test::row("20", "del", RowState::kDeleted));
    RecordFacts expired = test::row("21", "exp");
    expired.expires_us = test::kRealUs;
    in_a_.upsert(expired);
    in_b_.upsert(test::row("in b", kSecond));
  }

  Quiescence::Reader reader{quiescence_};
  WorkerStats stats;
  WorkerContext context;
  Batch batch;
};

struct Heard {
  std::string replies;
  bool closed = false;
  std::uint64_t unknown = 0;

  friend bool operator==(const Heard&, const Heard&) = default;
};

void answer(Worker& worker, Conversation& conversation, FrameBuffer& in, Heard& heard) {
  using Next = Conversation::Next;
  for (Next next = Next::kWrite; next != Next::kRead && !heard.closed;) {
    OutBuffer out;
    next = test::turn(conversation, in, out, worker.context, worker.batch);
    if (next == Next::kSync) encode_synced(out, conversation.sync().request_id, 0);
    heard.closed = next == Next::kClose;
    heard.replies += as_text(out.bytes());
    heard.unknown += conversation.take_unknown();
  }
}

Heard say(Worker& worker, const Rights& rights, std::string_view talk,
          const std::vector<std::size_t>& pieces) {
  FrameBuffer in(LATCHKEY_REQUEST_BYTES_MAX, LATCHKEY_WHY);
  Conversation conversation(rights);
  Heard heard;
  for (std::size_t piece = 0; !talk.empty() && !heard.closed; ++piece) {
    const auto room = in.writable();
    FUZZ_CHECK(!room.empty());
    std::size_t count = std::min(talk.size(), room.size());
    if (piece < pieces.size()) count = std::min(count, pieces[piece]);
    std::memcpy(room.data(), talk.data(), count);
    in.commit(count);
    talk.remove_prefix(count);
    answer(worker, conversation, in, heard);
  }
  return heard;
}

bool let_in(std::uint8_t* body, std::size_t length) {
  static latchkey_answer answers[LATCHKEY_BATCH_KEYS_MAX];
  std::size_t count = 0;
  FUZZ_CHECK(lk_decode_verified(body, length, answers, &count) == 0);
  return std::any_of(answers, answers + count,
                     [](const latchkey_answer& one) { return one.verdict == LATCHKEY_VALID; });
}

void check_replies(std::string replies, std::string_view talk) {
  for (std::size_t at = 0; at < replies.size();) {
    auto* frame = reinterpret_cast<std::uint8_t*>(replies.data()) + at;
    lk_header header{};
    FUZZ_CHECK(replies.size() - at >= LATCHKEY_HEADER_BYTES);
    FUZZ_CHECK(lk_decode_header(frame, &header) == 0);
    FUZZ_CHECK(header.length <= replies.size() - at);
    at += header.length;
    std::uint8_t* body = frame + LATCHKEY_HEADER_BYTES;
    const std::size_t length = header.length - LATCHKEY_HEADER_BYTES;
    std::uint32_t code = 0;
    const char* text = nullptr;
    switch (header.type) {
      case LATCHKEY_ERROR: FUZZ_CHECK(lk_decode_error(body, length, &code, &text) == 0); break;
      case LATCHKEY_WHY_REPLY: FUZZ_CHECK(lk_decode_text(body, length, &text) == 0); break;
      case LATCHKEY_VERIFIED:
        if (let_in(body, length)) {
          FUZZ_CHECK(talk.find(kGood) != talk.npos || talk.find(kSecond) != talk.npos);
        }
        break;
      default: break;
    }
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static Worker worker;
  FuzzedDataProvider input(data, size);
  const Rights rights{.sources = input.ConsumeIntegral<SourceMask>() & 0b111,
                      .all_sources = input.ConsumeBool(),
                      .reasons = input.ConsumeBool(),
                      .metadata = input.ConsumeBool()};
  const std::vector<std::size_t> pieces = fuzz::pieces_from(input);
  std::string talk;
  for (auto frames = input.ConsumeIntegralInRange<int>(0, 4); frames > 0; --frames) {
    talk += fuzz::frame_from(input, 400);
  }
  talk += input.ConsumeRemainingBytesAsString();
  const Heard whole = say(worker, rights, talk, {});
  FUZZ_CHECK(say(worker, rights, talk, pieces) == whole);
  check_replies(whole.replies, talk);
  return 0;
}
