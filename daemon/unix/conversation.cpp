#include "daemon/unix/conversation.h"

#include <algorithm>
#include <array>

#include "base/wire_names.h"
#include "verify/explain.h"

namespace latchkey {
namespace {

// What a caller without the right to reasons is told. A refused key is an unknown one; so is a key
// that cannot be answered for, because how old that is depends on where its rows are. Everything
// else says nothing of bad keys; a verdict that is not named here is hidden.
const Finding& without_reasons(const Finding& finding, const Finding& as_unknown) {
  switch (finding.verdict) {
    case LATCHKEY_VALID:
    case LATCHKEY_INSUFFICIENT_SCOPE:
    case LATCHKEY_MALFORMED:
    case LATCHKEY_FORBIDDEN: return finding;
    default: return as_unknown;
  }
}

// Only what was let in counts as used.
void note_use(const Finding& finding, const UseMoment& moment, const WorkerContext& context) {
  if (finding.verdict != LATCHKEY_VALID) return;
  UseLog* uses = context.verifier->routes()[finding.route].uses;
  if (uses != nullptr) uses->note(context.worker, *finding.record, moment);
}

}  // namespace

BatchScratch::BatchScratch() {
  requests.reserve(kRequests);
  terms.reserve(kRequests);
  questions.reserve(kQuestions);
  scopes.reserve(kScopes);
  findings.resize(kQuestions);
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
  // The keys' bytes are wiped here, when nothing points to them any more.
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

// What is no request at all is refused as such, whoever asks.
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
    flush(out, context, scratch);  // what came before is answered before the refusal
    return refuse(frame, *error, out, context);
  }
  context.stats->requests.add();

  const auto sources = sources_of(request, *context.verifier);
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

// Which sources a request means. Nothing: it names one that does not exist. Whoever may not use all
// sources is not told which others exist: forbidden either way.
std::optional<SourceMask> Conversation::sources_of(const VerifyRequest& request,
                                                   const Verifier& verifier) const {
  if (request.source.empty()) return rights_.sources;
  const auto& routes = verifier.routes();
  const auto named = std::ranges::find_if(
      routes, [&](const Route& route) { return route.keys->name == request.source; });
  if (named != routes.end()) {
    return rights_.sources & (SourceMask{1} << (named - routes.begin()));
  }
  return rights_.all_sources ? std::nullopt : std::optional<SourceMask>(0);
}

Conversation::Next Conversation::take_why(const Frame& frame, OutBuffer& out,
                                          const WorkerContext& context) {
  VerifyRequest request;
  if (const DecodeError error = decode_why(frame.body, request)) {
    return refuse(frame, *error, out, context);
  }
  context.stats->requests.add();
  const auto sources = sources_of(request, *context.verifier);
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
    // Records stay alive inside the section, so replies are encoded inside it, too.
    const ReadSection section(*context.reader);
    const Now now = context.clock();
    const std::span<const Question> questions(scratch.questions);
    const std::span<Finding> findings(scratch.findings);
    for (std::size_t from = 0; from < questions.size(); from += Verifier::kBatchMax) {
      const std::size_t count = std::min(Verifier::kBatchMax, questions.size() - from);
      context.verifier->verify(questions.subspan(from, count), now, findings.subspan(from, count));
    }
    const UseMoment moment = context.use_clock.at(now.real_us);
    std::size_t next = 0;
    for (const BatchScratch::Request& request : scratch.requests) {
      VerifiedWriter writer(out, request.id, request.keys);
      for (std::size_t i = 0; i < request.keys; ++i) {
        const Finding& finding = findings[next++];
        note_use(finding, moment, context);
        write_answer(writer, finding, request.flags, context);
      }
      writer.finish();
    }
  }
  scratch.requests.clear();
  scratch.terms.clear();
  scratch.questions.clear();
  scratch.scopes.clear();
}

void Conversation::write_answer(VerifiedWriter& writer, const Finding& finding, std::uint16_t flags,
                                const WorkerContext& context) {
  context.stats->verdicts[finding.verdict].add();
  const std::size_t spoke = finding.record != nullptr ? finding.route : WorkerStats::kNoSource;
  context.stats->verdicts_by_source[spoke][finding.verdict].add();
  if (finding.verdict == LATCHKEY_VALID) {
    context.stats->accepted_by_pepper[context.verifier->digesters()[finding.digester].counter()]
        .add();
  }
  const Finding as_unknown = finding.as_unknown();
  const Finding& told = rights_.reasons ? finding : without_reasons(finding, as_unknown);
  context.stats->told[told.verdict].add();
  if (told.verdict == LATCHKEY_UNKNOWN) ++unknown_;
  std::array<Bytes, 6> parts;
  std::size_t count = 0;
  std::array<std::uint8_t, LATCHKEY_CLAIM_BYTES + sizeof(std::int64_t)> expires;
  // Whose key it is, is told of a good key, and of a bad one only with its reason.
  const bool tell = told.record != nullptr;
  if (tell && (flags & LATCHKEY_WANT_CLAIMS) != 0) {
    const Record& record = *told.record;
    parts[count++] = context.verifier->routes()[told.route].keys->name_claim;
    parts[count++] = record.claims();
    if (record.tenant() != nullptr) parts[count++] = record.tenant()->encoded();
    // Infinities are no times: kAlwaysValid as an expiry is one that was always past.
    const std::int64_t expires_us = std::min(record.expires_us(), told.token_expires_us);
    if (expires_us != kNeverExpires && expires_us != kAlwaysValid) {
      put_claim(expires.data(), LATCHKEY_CLAIM_EXPIRES, floor_seconds(expires_us));
      parts[count++] = expires;
    }
    if (record.scopes() != nullptr) parts[count++] = record.scopes()->claim;
  }
  if (tell && rights_.metadata && (flags & LATCHKEY_WANT_METADATA) != 0) {
    parts[count++] = told.record->metadata();
  }
  writer.add(told.verdict, told.fresh ? LATCHKEY_FRESH : 0, told.age_ms,
             std::span(parts).first(count));
}

Conversation::Next Conversation::refuse(const Frame& frame, latchkey_error code, OutBuffer& out,
                                        const WorkerContext& context) {
  context.stats->protocol_errors.add();
  encode_error(out, frame.header.request_id, code, error_sentence(code));
  return Next::kClose;
}

}  // namespace latchkey
