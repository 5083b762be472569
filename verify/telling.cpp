#include "verify/telling.h"

#include <algorithm>

#include "base/claims.h"
#include "base/clock.h"

namespace latchkey {
namespace {

// May a caller without the right to reasons learn this verdict? Others hide behind the answer to an
// unknown key: a refused key is an unknown one, and so is a key that cannot be answered for,
// because that depends on where its rows are. A verdict that is not named here is hidden.
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

void Telling::tell(const Finding& finding, Wanted wanted, Answer& answer) {
  note_use(finding);
  count(finding);
  const Finding as_unknown = finding.as_unknown();
  const Finding& told =
      rights_.reasons || says_nothing_of_rows(finding.verdict) ? finding : as_unknown;
  stats_.told[told.verdict].add();
  if (told.verdict == LATCHKEY_UNKNOWN) ++unknown_;
  answer.verdict = told.verdict;
  answer.fresh = told.fresh;
  answer.age_ms = told.age_ms;
  answer.count_ = 0;
  // The owner of a bad key is told only with the reason why it is bad.
  if (told.record == nullptr) return;
  if (wanted.claims) add_claims(told, answer);
  if (wanted.metadata && rights_.metadata) answer.add(told.record->metadata());
}

void Telling::count(const Finding& finding) const {
  stats_.verdicts[finding.verdict].add();
  const std::size_t spoke = finding.record != nullptr ? finding.route : VerdictStats::kNoSource;
  stats_.verdicts_by_source[spoke][finding.verdict].add();
  if (finding.verdict != LATCHKEY_VALID) return;
  stats_.accepted_by_pepper[verifier_.digesters()[finding.digester].counter()].add();
}

// Only a key that lets its holder in counts as used.
void Telling::note_use(const Finding& finding) const {
  if (finding.verdict != LATCHKEY_VALID) return;
  UseLog* uses = verifier_.routes()[finding.route].uses;
  if (uses != nullptr) uses->note(worker_, *finding.record, moment_);
}

void Telling::add_claims(const Finding& told, Answer& answer) const {
  const Record& record = *told.record;
  answer.add(verifier_.routes()[told.route].keys->name_claim);
  answer.add(record.claims());
  if (record.tenant() != nullptr) answer.add(record.tenant()->encoded());
  // Infinities are no times: kAlwaysValid as an expiry is one that was always past.
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
