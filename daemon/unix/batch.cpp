#include "daemon/unix/batch.h"

#include <algorithm>
#include <cassert>
#include <span>

#include "keymap/quiescence.h"
#include "verify/telling.h"

namespace latchkey {

Batch::Batch() {
  requests_.reserve(kRequests);
  terms_.reserve(kRequests);
  questions_.reserve(kQuestions);
  scopes_.reserve(kScopes);
  outcomes_.resize(kQuestions);
}

bool Batch::full() const {
  return requests_.size() == kRequests ||
         questions_.size() > kQuestions - LATCHKEY_BATCH_KEYS_MAX ||
         scopes_.size() > kScopes - std::size_t{2} * LATCHKEY_SCOPES_MAX;
}

std::span<const std::string_view> Batch::keep(const ScopeList& scopes) {
  const std::string_view* first = scopes_.data() + scopes_.size();
  for (const std::string_view scope : scopes) scopes_.push_back(scope);
  return {first, scopes.size()};
}

void Batch::add(const Asker& asker, std::uint64_t request_id, const VerifyRequest& request,
                SourceMask sources) {
  assert(!full());
  terms_.push_back({.sources = sources,
                    .max_age_ms = request.max_age_ms,
                    .all_scopes = keep(request.all_scopes),
                    .any_scopes = keep(request.any_scopes)});
  requests_.push_back(
      {&asker.rights, &asker.out, &asker.unknown, request_id, request.flags, request.keys.size()});
  for (const std::string_view key : request.keys) questions_.push_back({key, &terms_.back()});
}

void Batch::answer(const WorkerContext& context) {
  if (requests_.empty()) return;
  {
    // Records stay alive inside the section only, so replies are encoded inside it, too.
    const ReadSection section(*context.reader);
    const Now now = context.clock();
    const std::span<const Question> questions(questions_);
    const std::span<Outcome> outcomes(outcomes_);
    for (std::size_t from = 0; from < questions.size(); from += Verifier::kBatchMax) {
      const std::size_t count = std::min(Verifier::kBatchMax, questions.size() - from);
      context.verifier->verify(questions.subspan(from, count), now, outcomes.subspan(from, count));
    }
    const UseMoment moment = context.use_clock.at(now.real_us);
    Answer told;
    std::size_t next = 0;
    for (const Request& request : requests_) {
      Telling telling(*context.verifier, *request.rights, *context.stats, context.worker, moment);
      const Wanted wanted{.claims = (request.flags & LATCHKEY_WANT_CLAIMS) != 0,
                          .metadata = (request.flags & LATCHKEY_WANT_METADATA) != 0};
      VerifiedWriter writer(*request.out, request.id, request.keys);
      for (std::size_t i = 0; i < request.keys; ++i) {
        telling.tell(outcomes[next++], wanted, told);
        writer.add(told.verdict, told.fresh ? LATCHKEY_FRESH : 0, told.age_ms, told.claims());
      }
      writer.finish();
      *request.unknown += telling.unknown();
    }
  }
  clear();
}

void Batch::clear() {
  requests_.clear();
  terms_.clear();
  questions_.clear();
  scopes_.clear();
}

}  // namespace latchkey
