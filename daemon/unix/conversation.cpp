#include "daemon/unix/conversation.h"

#include <vector>

#include "base/wire_names.h"
#include "verify/explain.h"
#include "verify/telling.h"

namespace latchkey {

void Conversation::take(FrameBuffer& in, OutBuffer& out, const WorkerContext& context,
                        Batch& batch) {
  next_ = Next::kRead;
  work_ = 0;
  while (next_ == Next::kRead) {
    const auto frame = in.next_frame();
    if (!frame) break;
    next_ = take(*frame, out, context, batch);
  }
}

Conversation::Next Conversation::finish(FrameBuffer& in, OutBuffer& out,
                                        const WorkerContext& context) {
  // release() wipes the keys' bytes; nothing points to them any more.
  in.release();
  if (next_ == Next::kRead && in.error()) {
    context.stats->protocol_errors.add();
    encode_error(out, in.error_request_id(), *in.error(), error_sentence(*in.error()));
    next_ = Next::kClose;
  }
  return next_;
}

Conversation::Next Conversation::take(const Frame& frame, OutBuffer& out,
                                      const WorkerContext& context, Batch& batch) {
  work_ += kWorkOfRequest;
  if (!may_ask(frame.header.type)) {
    batch.answer(context);
    context.stats->refused_operations.add();
    encode_error(out, frame.header.request_id, LATCHKEY_OPERATION_NOT_ALLOWED,
                 error_sentence(LATCHKEY_OPERATION_NOT_ALLOWED));
    return go_on(out, context);
  }
  if (frame.header.type == LATCHKEY_VERIFY) return take_verify(frame, out, context, batch);
  batch.answer(context);
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
                                             const WorkerContext& context, Batch& batch) {
  VerifyRequest request;
  if (const DecodeError error = decode_verify(frame.body, request)) {
    batch.answer(context);  // earlier requests are answered before the refusal
    return refuse(frame, *error, out, context);
  }
  context.stats->requests.add();

  const auto sources = sources_named(request.source, rights_, *context.verifier);
  if (!sources) {
    batch.answer(context);
    encode_error(out, frame.header.request_id, LATCHKEY_UNKNOWN_SOURCE,
                 error_sentence(LATCHKEY_UNKNOWN_SOURCE));
    return go_on(out, context);
  }
  if (batch.full()) batch.answer(context);
  batch.add({rights_, out, unknown_}, frame.header.request_id, request, *sources);
  const std::size_t scopes = request.all_scopes.size() + request.any_scopes.size();
  for (const std::string_view key : request.keys) {
    work_ += 1 + scopes / kScopesOfWork +
             key.size() / kKeyBytesOfWork * context.verifier->digesters().size();
  }
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

Conversation::Next Conversation::refuse(const Frame& frame, latchkey_error code, OutBuffer& out,
                                        const WorkerContext& context) {
  context.stats->protocol_errors.add();
  encode_error(out, frame.header.request_id, code, error_sentence(code));
  return Next::kClose;
}

}  // namespace latchkey
