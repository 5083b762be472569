#include "verify/verifier.h"

#include <algorithm>
#include <cassert>
#include <functional>
#include <optional>
#include <stdexcept>
#include <utility>

namespace latchkey {
namespace {

constexpr std::int64_t kNsPerMs = 1'000'000;

bool is_well_formed(std::string_view key) {
  return !key.empty() && key.size() <= LATCHKEY_KEY_BYTES_MAX &&
         key.find('\0') == std::string_view::npos;
}

bool scopes_suffice(const ScopeSet* held, const Terms& terms) {
  if (terms.all_scopes.empty() && terms.any_scopes.empty()) return true;
  if (held == nullptr) return false;
  const auto holds = [held](std::string_view scope) { return held->holds(scope); };
  return std::ranges::all_of(terms.all_scopes, holds) &&
         (terms.any_scopes.empty() || std::ranges::any_of(terms.any_scopes, holds));
}

std::uint32_t saturated_ms(std::int64_t ns) {
  if (ns == std::numeric_limits<std::int64_t>::max()) return LATCHKEY_AGE_UNKNOWN;
  return static_cast<std::uint32_t>(
      std::min<std::int64_t>(ns / kNsPerMs, LATCHKEY_AGE_UNKNOWN - 1));
}

}  // namespace

latchkey_verdict judge(const Record& record, std::int64_t real_us) {
  switch (record.state()) {
    case RowState::kDeleted: return LATCHKEY_DELETED;
    case RowState::kRevoked: return LATCHKEY_REVOKED;
    case RowState::kDisabled: return LATCHKEY_DISABLED;
    case RowState::kActive: break;
  }
  if (record.expires_us() <= real_us && record.expires_us() != kNeverExpires) {
    return LATCHKEY_EXPIRED;
  }
  if (record.not_before_us() > real_us) return LATCHKEY_NOT_YET_VALID;
  return LATCHKEY_VALID;
}

latchkey_verdict judge(const Record& record, const JwtTimes& token, std::int64_t real_us) {
  const latchkey_verdict row = judge(record, real_us);
  if (row != LATCHKEY_VALID && row != LATCHKEY_NOT_YET_VALID) return row;
  if (token.expires_us <= real_us && token.expires_us != kNeverExpires) return LATCHKEY_EXPIRED;
  return token.not_before_us > real_us ? LATCHKEY_NOT_YET_VALID : row;
}

Digester::Digester(std::string pepper_version, std::span<const std::uint8_t> secret,
                   std::size_t counter)
    : pepper_version_(std::move(pepper_version)),
      hmac_(std::make_shared<HmacKey>(secret)),
      counter_(counter) {}

std::string Digester::label() const {
  if (jwt_key_ != nullptr) return "jti of a token signed with " + pepper_version_;
  return pepper_version_.empty() ? "SHA-256" : "HMAC-SHA-256 under pepper " + pepper_version_;
}

Digester Digester::of_jwts(std::string secret_name, std::span<const std::uint8_t> secret,
                           std::size_t counter) {
  Digester digester;
  digester.pepper_version_ = std::move(secret_name);
  digester.jwt_key_ = std::make_shared<Hs256Key>(secret);
  digester.counter_ = counter;
  return digester;
}

Verifier::Verifier(std::vector<Digester> digesters, std::vector<Route> routes,
                   FreshnessLimits limits)
    : digesters_(std::move(digesters)), routes_(std::move(routes)), limits_(limits) {
  if (routes_.size() > kSourcesMax) throw std::length_error("more sources than kSourcesMax");
  if (digesters_.size() > kDigestersMax) {
    throw std::length_error("more pepper versions than kDigestersMax");
  }
  routes_of_digester_.resize(digesters_.size());
  for (std::size_t route = 0; route < routes_.size(); ++route) {
    for (const std::size_t digester : routes_[route].digesters) {
      routes_of_digester_.at(digester).push_back(route);
    }
  }
}

// Ages of all sources. They are read before any look-up of the batch (see FreshnessStamp::age_ns).
struct Verifier::Ages {
  std::array<std::int64_t, kSourcesMax> ns;

  Ages(const std::vector<Route>& routes, std::int64_t boot_ns) {
    for (std::size_t i = 0; i < routes.size(); ++i) {
      ns[i] = routes[i].keys->freshness.age_ns(boot_ns);
    }
  }
};

void Verifier::verify(std::span<const Question> questions, const Now& now,
                      std::span<Outcome> outcomes) const {
  find_all(questions, now, outcomes, [](const Outcome&, const JwtTimes&) {});
}

Outcome Verifier::verify(const Question& question, const Now& now,
                         std::vector<Sighting>& seen) const {
  Outcome outcome;
  find_all({&question, 1}, now, {&outcome, 1},
           [&seen](const Outcome& candidate, const JwtTimes& token) {
             seen.push_back(
                 {candidate.route, candidate.digester, candidate.record, candidate.verdict, token});
           });
  return outcome;
}

// Calls `observe` for every row that holds a key, before the row is weighed, and passes the times
// of the presented token.
template <typename Observer>
void Verifier::find_all(std::span<const Question> questions, const Now& now,
                        std::span<Outcome> outcomes, const Observer& observe) const {
  assert(questions.size() <= kBatchMax && outcomes.size() >= questions.size());
  const Ages ages(routes_, now.boot_ns);
  for (std::size_t i = 0; i < questions.size(); ++i) {
    outcomes[i] = Outcome{};
    if (!is_well_formed(questions[i].key)) outcomes[i].verdict = LATCHKEY_MALFORMED;
  }
  Twins twins;
  for (std::size_t digester = 0; digester < digesters_.size(); ++digester) {
    look_up(digester, questions, now, outcomes, twins, observe);
  }
  weigh(outcomes, twins);
  for (std::size_t i = 0; i < questions.size(); ++i) settle(questions[i], ages, outcomes[i]);
}

namespace {

bool is_active(const Record& record) {
  // A record that stands for several rows refuses the key because these rows are active.
  return record.state() == RowState::kActive || record.stands_for();
}

// True if row `b` decides for the source rather than row `a` of the same source. KeySetWriter
// applies the same order (see KeySetWriter::publish()).
bool outranks(const Outcome& b, const Outcome& a) {
  const auto rank = [](const Outcome& row) {
    return is_active(*row.record) ? RowState::kActive : row.record->state();
  };
  return std::pair(rank(a), b.record->key_id()) < std::pair(rank(b), a.record->key_id());
}

// The verdict of all rows of one source that hold a key. Several active rows leave the key without
// an owner, so it is refused.
Outcome of_source(std::span<const Outcome> rows) {
  Outcome speaker = rows.front();
  bool several = false;
  for (const Outcome& row : rows.subspan(1)) {
    // Rows are compared by id: a row that the writer replaces between two look-ups is found as two
    // records, and is still one row.
    several = several || row.record->key_id() != rows.front().record->key_id();
    if (outranks(row, speaker)) speaker = row;
  }
  if (several && is_active(*speaker.record)) speaker.verdict = LATCHKEY_DISABLED;
  return speaker;
}

}  // namespace

// Decides about keys that several rows hold. The result does not depend on the order in which the
// rows were found.
void Verifier::weigh(std::span<Outcome> outcomes, Twins& twins) {
  if (twins.empty()) return;
  for (std::size_t i = 0; i < outcomes.size(); ++i) {
    std::vector<Outcome> rows;
    for (const auto& [question, row] : twins) {
      if (question == i) rows.push_back(row);
    }
    if (rows.empty()) continue;
    rows.push_back(outcomes[i]);
    std::ranges::stable_sort(rows, {}, &Outcome::route);
    const SourceMask held_by = outcomes[i].held_by;
    std::optional<Outcome> spoken;
    for (auto first = rows.begin(); first != rows.end();) {
      const auto last = std::find_if(first, rows.end(), [route = first->route](const Outcome& row) {
        return row.route != route;
      });
      const Outcome source = of_source({first, last});
      if (!spoken || (spoken->verdict == LATCHKEY_VALID && source.verdict != LATCHKEY_VALID)) {
        spoken = source;
      }
      first = last;
    }
    outcomes[i] = *spoken;
    outcomes[i].held_by = held_by;
  }
}

// Digests of presented keys.
struct Verifier::Presented {
  std::span<const Digest> digests;
  std::span<const std::size_t> asked;  // the index of each digest's question
  std::span<const JwtTimes> times;     // for tokens, the times of each token; else empty
};

// Computes one digest per key for all sources that use this digester.
template <typename Observer>
void Verifier::look_up(std::size_t digester, std::span<const Question> questions, const Now& now,
                       std::span<Outcome> outcomes, Twins& twins, const Observer& observe) const {
  SourceMask interested = 0;
  for (const std::size_t route : routes_of_digester_[digester])
    interested |= SourceMask{1} << route;

  std::array<std::string_view, kBatchMax> texts;
  std::array<Digest, kBatchMax> digests;
  std::array<std::size_t, kBatchMax> asked;
  std::size_t count = 0;
  for (std::size_t i = 0; i < questions.size(); ++i) {
    if ((questions[i].terms->sources & interested) == 0) continue;
    if (outcomes[i].verdict == LATCHKEY_MALFORMED) continue;
    texts[count] = questions[i].key;
    asked[count++] = i;
  }
  if (count == 0) return;
  if (digesters_[digester].jwt_key() != nullptr) {
    look_up_jwts(digester, std::span(texts).first(count), asked, questions, now, outcomes, twins,
                 observe);
    return;
  }
  digesters_[digester](std::span(texts).first(count), digests);
  hear_rows(digester, {std::span(digests).first(count), asked, {}}, questions, now, outcomes, twins,
            observe);
}

namespace {

struct Jtis {
  std::vector<Digest> digests;
  std::vector<std::size_t> asked;
  std::vector<JwtTimes> times;

  void add(const Digest& digest, std::size_t question, const JwtTimes& token) {
    digests.push_back(digest);
    asked.push_back(question);
    times.push_back(token);
  }
};

}  // namespace

// Skips tokens that this secret did not sign. A jti is looked up as a text and, if it has the form
// of a UUID, as a UUID, because the type of the row's column determines the row's digest.
template <typename Observer>
void Verifier::look_up_jwts(std::size_t digester, std::span<const std::string_view> tokens,
                            std::span<const std::size_t> asked, std::span<const Question> questions,
                            const Now& now, std::span<Outcome> outcomes, Twins& twins,
                            const Observer& observe) const {
  std::vector<std::optional<std::string>> claims(tokens.size());
  digesters_[digester].jwt_key()->open(tokens, claims);
  Jtis texts, uuids;
  for (std::size_t j = 0; j < tokens.size(); ++j) {
    const auto said = claims[j] ? read_jwt_claims(*claims[j]) : std::nullopt;
    if (!said || !said->jti) continue;
    const JtiDigests digests = jti_digests(*said->jti);
    texts.add(digests.text, asked[j], said->times);
    if (digests.uuid) uuids.add(*digests.uuid, asked[j], said->times);
  }
  for (const Jtis& jtis : {std::cref(texts), std::cref(uuids)}) {
    hear_rows(digester, {jtis.digests, jtis.asked, jtis.times}, questions, now, outcomes, twins,
              observe);
  }
}

// Looks the digests up in every route of the digester and adds the rows found to `outcomes` and
// `twins`.
template <typename Observer>
void Verifier::hear_rows(std::size_t digester, const Presented& presented,
                         std::span<const Question> questions, const Now& now,
                         std::span<Outcome> outcomes, Twins& twins, const Observer& observe) const {
  const std::span<const std::size_t> asked = presented.asked;
  const std::size_t count = presented.digests.size();
  for (const std::size_t route : routes_of_digester_[digester]) {
    std::array<const Record*, kBatchMax> records;
    routes_[route].keys->map.find(presented.digests, records);
    for (std::size_t j = 0; j < count; ++j) {
      if (records[j] != nullptr) records[j]->prefetch_rest();
    }
    for (std::size_t j = 0; j < count; ++j) {
      const bool wanted = (questions[asked[j]].terms->sources & (SourceMask{1} << route)) != 0;
      if (records[j] == nullptr || !wanted) continue;
      Outcome candidate;
      if (presented.times.empty()) {
        candidate.verdict = judge(*records[j], now.real_us);
      } else {
        candidate.verdict = judge(*records[j], presented.times[j], now.real_us);
        candidate.token_expires_us = presented.times[j].expires_us;
      }
      candidate.record = records[j];
      candidate.route = route;
      candidate.digester = digester;
      observe(candidate, presented.times.empty() ? JwtTimes{} : presented.times[j]);
      Outcome& first = outcomes[asked[j]];
      candidate.held_by = first.held_by |= SourceMask{1} << route;
      if (first.record == nullptr) {
        first = candidate;
      } else {
        twins.emplace_back(asked[j], candidate);
      }
    }
  }
}

// Applies freshness and scopes. Each row that holds the key could have been revoked meanwhile, so
// the age of an answer is the age of the oldest source that holds the key. If no source holds it,
// the age is that of the oldest source asked, since each of them could hold it by now.
void Verifier::settle(const Question& question, const Ages& ages, Outcome& outcome) const {
  std::int64_t oldest_ns = -1;
  std::int64_t oldest_holder_ns = -1;
  for (std::size_t route = 0; route < routes_.size(); ++route) {
    const SourceMask bit = SourceMask{1} << route;
    if ((question.terms->sources & bit) != 0) oldest_ns = std::max(oldest_ns, ages.ns[route]);
    if ((outcome.held_by & bit) != 0) {
      oldest_holder_ns = std::max(oldest_holder_ns, ages.ns[route]);
    }
  }
  if (oldest_ns < 0) {
    outcome.verdict = outcome.verdict_if_unknown = LATCHKEY_FORBIDDEN;
    outcome.age_ms = outcome.age_if_unknown_ms = LATCHKEY_AGE_UNKNOWN;  // nothing was looked up
    return;
  }
  if (outcome.verdict == LATCHKEY_MALFORMED) {
    outcome.verdict_if_unknown = LATCHKEY_MALFORMED;
    outcome.fresh = outcome.fresh_if_unknown = true;  // no change of a table could change that
    return;
  }
  const auto too_old = [&](std::int64_t age_ns) {
    const bool demanded = question.terms->max_age_ms != LATCHKEY_MAX_AGE_ANY;
    return age_ns > limits_.max_stale_ns ||
           (demanded && age_ns > std::int64_t{question.terms->max_age_ms} * kNsPerMs);
  };
  const bool unknown_too_old = too_old(oldest_ns);
  outcome.verdict_if_unknown = unknown_too_old ? LATCHKEY_UNAVAILABLE : LATCHKEY_UNKNOWN;
  outcome.fresh_if_unknown = !unknown_too_old && oldest_ns <= limits_.bound_ns;
  outcome.age_if_unknown_ms = saturated_ms(oldest_ns);

  const std::int64_t age_ns = outcome.record != nullptr ? oldest_holder_ns : oldest_ns;
  outcome.age_ms = saturated_ms(age_ns);
  if (too_old(age_ns)) {
    outcome.verdict = LATCHKEY_UNAVAILABLE;
    outcome.record = nullptr;
    return;
  }
  outcome.fresh = age_ns <= limits_.bound_ns;
  if (outcome.record == nullptr) {
    outcome.verdict = LATCHKEY_UNKNOWN;
  } else if (outcome.verdict == LATCHKEY_VALID &&
             !scopes_suffice(outcome.record->scopes(), *question.terms)) {
    outcome.verdict = LATCHKEY_INSUFFICIENT_SCOPE;
  }
}

}  // namespace latchkey
