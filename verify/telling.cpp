#include "verify/telling.h"

#include <algorithm>

#include "base/claims.h"
#include "base/clock.h"

namespace latchkey {
namespace {

// True if a caller without the right to reasons may learn this verdict, because it reveals nothing
// about refused keys. Any other verdict is hidden behind the answer to an unknown key: that of a
// refused key, and that of an unavailable key, because its age depends on the sources of its rows.
bool says_nothing_of_rows(latchkey_verdict verdict) {
  switch (verdict) {
    case LATCHKEY_VALID:
    case LATCHKEY_INSUFFICIENT_SCOPE:
    case LATCHKEY_MALFORMED:
    case LATCHKEY_FORBIDDEN: return true;
    default: return false;
  }
}

}  // namespace

void Telling::tell(const Outcome& outcome, Wanted wanted, Answer& answer) {
  note_use(outcome);
  count(outcome);
  const Outcome as_unknown = outcome.as_unknown();
  const Outcome& told =
      rights_.reasons || says_nothing_of_rows(outcome.verdict) ? outcome : as_unknown;
  stats_.told[told.verdict].add();
  if (told.verdict == LATCHKEY_UNKNOWN) ++unknown_;
  answer.verdict = told.verdict;
  answer.fresh = told.fresh;
  answer.age_ms = told.age_ms;
  answer.count_ = 0;
  // A hidden verdict has no record: the owner of a key is told only together with its verdict.
  if (told.record == nullptr) return;
  if (wanted.claims) add_claims(told, answer);
  if (wanted.metadata && rights_.metadata) answer.add(told.record->metadata());
}

void Telling::count(const Outcome& outcome) const {
  stats_.verdicts[outcome.verdict].add();
  const std::size_t spoke = outcome.record != nullptr ? outcome.route : VerdictStats::kNoSource;
  stats_.verdicts_by_source[spoke][outcome.verdict].add();
  if (outcome.verdict != LATCHKEY_VALID) return;
  stats_.accepted_by_pepper[verifier_.digesters()[outcome.digester].counter()].add();
}

// Only a `valid` answer counts as a use.
void Telling::note_use(const Outcome& outcome) const {
  if (outcome.verdict != LATCHKEY_VALID) return;
  UseLog* uses = verifier_.routes()[outcome.route].uses;
  if (uses != nullptr) uses->note(worker_, *outcome.record, moment_);
}

void Telling::add_claims(const Outcome& told, Answer& answer) const {
  const Record& record = *told.record;
  answer.add(verifier_.routes()[told.route].keys->name_claim);
  answer.add(record.claims());
  if (record.tenant() != nullptr) answer.add(record.tenant()->encoded());
  // Infinite times are not sent. (kAlwaysValid as an expiry has always been in the past.)
  const std::int64_t expires_us = std::min(record.expires_us(), told.token_expires_us);
  if (expires_us != kNeverExpires && expires_us != kAlwaysValid) {
    put_claim(answer.expires_.data(), LATCHKEY_CLAIM_EXPIRES, floor_seconds(expires_us));
    answer.add(answer.expires_);
  }
  if (record.scopes() != nullptr) answer.add(record.scopes()->claim);
}

std::optional<SourceMask> sources_named(std::string_view name, const Rights& rights,
                                        const Verifier& verifier) {
  if (name.empty()) return rights.sources;
  const auto& routes = verifier.routes();
  const auto named =
      std::ranges::find_if(routes, [&](const Route& route) { return route.keys->name == name; });
  if (named != routes.end()) {
    return rights.sources & (SourceMask{1} << (named - routes.begin()));
  }
  return rights.all_sources ? std::nullopt : std::optional<SourceMask>(0);
}

}  // namespace latchkey
