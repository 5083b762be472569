#include "daemon/unix/conversation.h"

#include <algorithm>

#include "base/wire_names.h"
#include "verify/explain.h"
#include "verify/telling.h"

namespace latchkey {

BatchScratch::BatchScratch() {
  requests.reserve(kRequests);
  terms.reserve(kRequests);
  questions.reserve(kQuestions);
  scopes.reserve(kScopes);
  outcomes.resize(kQuestions);
}

Conversation::Next Conversation::answer(FrameBuffer& in, OutBuffer& out,
                                        const WorkerContext& context, BatchScratch& scratch) {
  Next next = Next::kRead;
  work_ = 0;
  while (next == Next::kRead) {
    const auto frame = in.next_frame();
    if (!frame) break;
    next = take(*frame, out, context, scratch);
  }
  flush(out, context, scratch);
  // release() wipes the keys' bytes; nothing points to them any more.
  in.release();
  if (next == Next::kRead && in.error()) {
    context.stats->protocol_errors.add();
    encode_error(out, in.error_request_id(), *in.error(), error_sentence(*in.error()));
    next = Next::kClose;
  }
  return next;
}

Conversation::Next Conversation::take(const Frame& frame, OutBuffer& out,
                                      const WorkerContext& context, BatchScratch& scratch) {
  work_ += kWorkOfRequest;
  if (!may_ask(frame.header.type)) {
    flush(out, context, scratch);
    context.stats->refused_operations.add();
    encode_error(out, frame.header.request_id, LATCHKEY_OPERATION_NOT_ALLOWED,
                 error_sentence(LATCHKEY_OPERATION_NOT_ALLOWED));
    return go_on(out, context);
  }
  if (frame.header.type == LATCHKEY_VERIFY) return take_verify(frame, out, context, scratch);
  flush(out, context, scratch);
  switch (frame.header.type) {
    case LATCHKEY_PING:
      if (const DecodeError error = decode_empty(frame.body)) {
        return refuse(frame, *error, out, context);
      }
      encode_pong(out, frame.header.request_id);
      break;
    case LATCHKEY_STATUS: return answer_status(frame, out, context);
    case LATCHKEY_SYNC:
      if (const DecodeError error = decode_sync(frame.body, sync_.timeout_ms)) {
        return refuse(frame, *error, out, context);
      }
      sync_.request_id = frame.header.request_id;
      sync_.sources = rights_.sources;
      context.stats->requests.add();
      return Next::kSync;
    case LATCHKEY_WHY: return take_why(frame, out, context);
    default: return refuse(frame, LATCHKEY_BAD_TYPE, out, context);
  }
  context.stats->requests.add();
  return go_on(out, context);
}

Conversation::Next Conversation::answer_status(const Frame& frame, OutBuffer& out,
                                               const WorkerContext& context) {
  if (const DecodeError error = decode_empty(frame.body)) {
    return refuse(frame, *error, out, context);
  }
  context.stats->requests.add();
  const auto text = context.status_json(rights_);
  work_ += kWorkOfStatus + text->size() / kStatusBytesOfWork;
  encode_status_reply(out, frame.header.request_id, *text);
  return go_on(out, context);
}

// Other types pass: take() answers a ping, and refuses an unknown type for every caller.
bool Conversation::may_ask(std::uint8_t type) const {
  switch (type) {
    case LATCHKEY_VERIFY:
    case LATCHKEY_STATUS:
    case LATCHKEY_SYNC:
    case LATCHKEY_WHY:
      return (rights_.operations & operation(static_cast<latchkey_type>(type))) != 0;
    default: return true;
  }
}

Conversation::Next Conversation::take_verify(const Frame& frame, OutBuffer& out,
                                             const WorkerContext& context, BatchScratch& scratch) {
  VerifyRequest request;
  if (const DecodeError error = decode_verify(frame.body, request)) {
    flush(out, context, scratch);  // earlier requests are answered before the refusal
    return refuse(frame, *error, out, context);
  }
  context.stats->requests.add();

  const auto sources = sources_named(request.source, rights_, *context.verifier);
  if (!sources) {
    flush(out, context, scratch);
    encode_error(out, frame.header.request_id, LATCHKEY_UNKNOWN_SOURCE,
                 error_sentence(LATCHKEY_UNKNOWN_SOURCE));
    return go_on(out, context);
  }
  Terms terms;
  terms.sources = *sources;
  terms.max_age_ms = request.max_age_ms;
  for (const auto& [list, kept] : {std::pair(&request.all_scopes, &terms.all_scopes),
                                   std::pair(&request.any_scopes, &terms.any_scopes)}) {
    const std::string_view* first = scratch.scopes.data() + scratch.scopes.size();
    for (const std::string_view scope : *list) scratch.scopes.push_back(scope);
    *kept = {first, list->size()};
  }
  scratch.terms.push_back(terms);
  scratch.requests.push_back({frame.header.request_id, request.flags, request.keys.size()});
  const std::size_t scopes = request.all_scopes.size() + request.any_scopes.size();
  for (const std::string_view key : request.keys) {
    scratch.questions.push_back({key, &scratch.terms.back()});
    work_ += 1 + scopes / kScopesOfWork +
             key.size() / kKeyBytesOfWork * context.verifier->digesters().size();
  }
  const bool full =
      scratch.requests.size() == BatchScratch::kRequests ||
      scratch.questions.size() > BatchScratch::kQuestions - LATCHKEY_BATCH_KEYS_MAX ||
      scratch.scopes.size() > BatchScratch::kScopes - std::size_t{2} * LATCHKEY_SCOPES_MAX;
  if (full) flush(out, context, scratch);
  return go_on(out, context);
}

Conversation::Next Conversation::take_why(const Frame& frame, OutBuffer& out,
                                          const WorkerContext& context) {
  VerifyRequest request;
  if (const DecodeError error = decode_why(frame.body, request)) {
    return refuse(frame, *error, out, context);
  }
  context.stats->requests.add();
  const auto sources = sources_named(request.source, rights_, *context.verifier);
  if (!rights_.reasons || !sources) {
    const latchkey_error code = rights_.reasons ? LATCHKEY_UNKNOWN_SOURCE : LATCHKEY_NO_REASONS;
    if (!rights_.reasons) context.stats->refused_no_reasons.add();
    encode_error(out, frame.header.request_id, code, error_sentence(code));
    return go_on(out, context);
  }
  work_ += kWorkOfWhy;
  std::vector<std::string_view> all_scopes, any_scopes;
  for (const std::string_view scope : request.all_scopes) all_scopes.push_back(scope);
  for (const std::string_view scope : request.any_scopes) any_scopes.push_back(scope);
  const Terms terms{*sources, request.max_age_ms, all_scopes, any_scopes};
  context.stats->explained.add();
  {
    const ReadSection section(*context.reader);
    encode_why_reply(out, frame.header.request_id,
                     explain(*context.verifier, {*request.keys.begin(), &terms}, context.clock()));
  }
  return go_on(out, context);
}

void Conversation::flush(OutBuffer& out, const WorkerContext& context, BatchScratch& scratch) {
  if (scratch.requests.empty()) return;
  {
    // Records stay alive inside the section only, so replies are encoded inside it, too.
    const ReadSection section(*context.reader);
    const Now now = context.clock();
    const std::span<const Question> questions(scratch.questions);
    const std::span<Outcome> outcomes(scratch.outcomes);
    for (std::size_t from = 0; from < questions.size(); from += Verifier::kBatchMax) {
      const std::size_t count = std::min(Verifier::kBatchMax, questions.size() - from);
      context.verifier->verify(questions.subspan(from, count), now, outcomes.subspan(from, count));
    }
    const UseMoment moment = context.use_clock.at(now.real_us);
    Telling telling(*context.verifier, rights_, *context.stats, context.worker, moment);
    Answer told;
    std::size_t next = 0;
    for (const BatchScratch::Request& request : scratch.requests) {
      const Wanted wanted{.claims = (request.flags & LATCHKEY_WANT_CLAIMS) != 0,
                          .metadata = (request.flags & LATCHKEY_WANT_METADATA) != 0};
      VerifiedWriter writer(out, request.id, request.keys);
      for (std::size_t i = 0; i < request.keys; ++i) {
        telling.tell(outcomes[next++], wanted, told);
        writer.add(told.verdict, told.fresh ? LATCHKEY_FRESH : 0, told.age_ms, told.claims());
      }
      writer.finish();
    }
    unknown_ += telling.unknown();
  }
  scratch.requests.clear();
  scratch.terms.clear();
  scratch.questions.clear();
  scratch.scopes.clear();
}

Conversation::Next Conversation::refuse(const Frame& frame, latchkey_error code, OutBuffer& out,
                                        const WorkerContext& context) {
  context.stats->protocol_errors.add();
  encode_error(out, frame.header.request_id, code, error_sentence(code));
  return Next::kClose;
}

}  // namespace latchkey
