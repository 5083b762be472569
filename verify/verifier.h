// Verdicts on presented keys.
//
// judge() computes the verdict of one row at one instant. Verifier combines the steps for a batch:
// it digests keys, looks them up in every source asked, selects the deciding source, and applies
// freshness. Both depend on their arguments only: time is an argument, and neither uses sockets or
// databases.
//
// When several rows hold the same key, one rule decides, independent of the order in which the rows
// arrived and of the number of digests that led to them (schemas.md, "Several rows with one key").
// Within a source, a deleted row decides before a disabled row, and a disabled row before a revoked
// row; several active rows refuse as disabled. Among several sources, the first source in the
// configuration that refuses the key decides, or the first one if none refuses it: revoking a key
// in any source revokes it.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "config/source.h"
#include "keymap/freshness.h"
#include "keymap/key_set.h"
#include "keys/jwt.h"
#include "latchkey/wire.h"

namespace latchkey {

// State comes before time: a revoked key that has also expired is revoked. Bounds are strict: at
// the instant of its expiry a key is expired.
[[nodiscard]] latchkey_verdict judge(const Record& record, std::int64_t real_us);
// The same for a token that has times of its own: the stricter times count.
[[nodiscard]] latchkey_verdict judge(const Record& record, const JwtTimes& token,
                                     std::int64_t real_us);

using SourceMask = std::uint32_t;
static_assert(kSourcesMax <= 32, "a SourceMask has a bit for each");
constexpr std::size_t kDigestersMax = 64;

// Digests presented keys. Immutable; sources with the same digest share one.
class Digester {
 public:
  // SHA-256 of the text.
  Digester() = default;
  // HMAC-SHA-256 under one pepper version. `counter` is the index of its counter of successes. It
  // stays the same as long as the process knows the version, even if other versions are added or
  // removed.
  Digester(std::string pepper_version, std::span<const std::uint8_t> secret, std::size_t counter);
  // Digests the jti of JWTs that this secret signed. `secret_name` and `counter` as above.
  [[nodiscard]] static Digester of_jwts(std::string secret_name,
                                        std::span<const std::uint8_t> secret, std::size_t counter);

  // Opens a presented token, so that its jti can be looked up; null: keys are digested unchanged.
  [[nodiscard]] const Hs256Key* jwt_key() const { return jwt_key_.get(); }
  // Writes the digest of texts[i] to digests[i]. Not for JWTs.
  void operator()(std::span<const std::string_view> texts, std::span<Digest> digests) const {
    hmac_ ? hmac_->digest(texts, digests) : sha256(texts, digests);
  }
  // For people: the operation that is applied to a key before its look-up.
  [[nodiscard]] std::string label() const;
  // The name of the secret for JWTs; empty for SHA-256.
  [[nodiscard]] const std::string& pepper_version() const { return pepper_version_; }
  [[nodiscard]] std::size_t counter() const { return counter_; }

 private:
  std::string pepper_version_;
  std::shared_ptr<const HmacKey> hmac_;
  std::shared_ptr<const Hs256Key> jwt_key_;
  std::size_t counter_ = 0;
};

// A source, and the digesters that can lead to its rows.
struct Route {
  const KeySet* keys = nullptr;
  std::vector<std::size_t> digesters;  // indexes into Verifier::digesters()
  std::string scheme = {};             // the storage scheme as the configuration names it
  UseLog* uses = nullptr;              // records `valid` answers; null: they are not recorded
};

// The caller's conditions on a key, in addition to its validity.
struct Terms {
  SourceMask sources = ~SourceMask{0};
  std::uint32_t max_age_ms = LATCHKEY_MAX_AGE_ANY;
  std::span<const std::string_view> all_scopes;
  std::span<const std::string_view> any_scopes;
};

struct Question {
  std::string_view key;
  const Terms* terms = nullptr;
};

struct Outcome {
  latchkey_verdict verdict = LATCHKEY_UNAVAILABLE;
  bool fresh = false;
  std::uint32_t age_ms = 0;
  // The answer to the same question about a key that no row holds.
  latchkey_verdict verdict_if_unknown = LATCHKEY_UNAVAILABLE;
  bool fresh_if_unknown = false;
  std::uint32_t age_if_unknown_ms = 0;
  const Record* record = nullptr;  // the deciding row; null: none
  SourceMask held_by = 0;          // all sources that hold the key
  std::size_t route = 0;           // the route of the record
  std::size_t digester = 0;
  std::int64_t token_expires_us = kNeverExpires;  // the expiry in the presented token

  // For callers that must not learn that a row exists: the result depends neither on the rows that
  // hold the key nor on the sources of these rows.
  [[nodiscard]] Outcome as_unknown() const {
    Outcome unknown;
    unknown.verdict = unknown.verdict_if_unknown = verdict_if_unknown;
    unknown.fresh = unknown.fresh_if_unknown = fresh_if_unknown;
    unknown.age_ms = unknown.age_if_unknown_ms = age_if_unknown_ms;
    return unknown;
  }
};

// One row that holds a key: its route, and the digester that led to it.
struct Sighting {
  std::size_t route = 0;
  std::size_t digester = 0;
  const Record* record = nullptr;
  latchkey_verdict verdict = LATCHKEY_UNAVAILABLE;  // of this row alone, without scopes
  JwtTimes token = {};  // the times in the presented token, if the table stores only its jti
};

class Verifier {
 public:
  Verifier(std::vector<Digester> digesters, std::vector<Route> routes, FreshnessLimits limits);

  static constexpr std::size_t kBatchMax = KeyMap::kBatchMax;
  // Must be called inside a ReadSection: outcomes point to records that live until the section
  // ends. Keys are not normalized. A key is malformed if it is empty, too long, or contains a zero
  // byte (which no PostgreSQL text can hold).
  void verify(std::span<const Question> questions, const Now& now,
              std::span<Outcome> outcomes) const;
  // The same for one question. Also returns every row that was weighed, in the order of the
  // look-ups: the outcome derives from exactly these rows, even if the writer publishes meanwhile.
  [[nodiscard]] Outcome verify(const Question& question, const Now& now,
                               std::vector<Sighting>& seen) const;

  [[nodiscard]] const std::vector<Digester>& digesters() const { return digesters_; }
  [[nodiscard]] const std::vector<Route>& routes() const { return routes_; }
  [[nodiscard]] const FreshnessLimits& limits() const { return limits_; }

 private:
  struct Ages;
  struct Presented;
  // (index of the question, row) for each row found after the first one that holds the same key.
  using Twins = std::vector<std::pair<std::size_t, Outcome>>;
  template <typename Observer>
  void find_all(std::span<const Question> questions, const Now& now, std::span<Outcome> outcomes,
                const Observer& observe) const;
  template <typename Observer>
  void look_up(std::size_t digester, std::span<const Question> questions, const Now& now,
               std::span<Outcome> outcomes, Twins& twins, const Observer& observe) const;
  template <typename Observer>
  void look_up_jwts(std::size_t digester, std::span<const std::string_view> tokens,
                    std::span<const std::size_t> asked, std::span<const Question> questions,
                    const Now& now, std::span<Outcome> outcomes, Twins& twins,
                    const Observer& observe) const;
  template <typename Observer>
  void hear_rows(std::size_t digester, const Presented& presented,
                 std::span<const Question> questions, const Now& now, std::span<Outcome> outcomes,
                 Twins& twins, const Observer& observe) const;
  static void weigh(std::span<Outcome> outcomes, Twins& twins);
  void settle(const Question& question, const Ages& ages, Outcome& outcome) const;

  std::vector<Digester> digesters_;
  std::vector<Route> routes_;
  std::vector<std::vector<std::size_t>> routes_of_digester_;
  FreshnessLimits limits_;
};

}  // namespace latchkey
