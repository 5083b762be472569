// May the holder of this key in?
//
// judge() says what one row answers at one instant. Verifier puts the pieces together for a batch:
// digests, look-ups in every source asked, which source speaks, freshness. Both are pure: time is
// an argument, and nothing here knows of sockets or databases.
//
// When several rows hold the same key, one rule decides, whatever the order in which they came, and
// whether one digest led to them or several (schemas.md, "Several rows with one key"). In a source,
// a row that is deleted speaks before one that is disabled, that before one that is revoked;
// several active ones refuse as disabled. Of several sources, the first in the configuration that
// refuses speaks, or the first, if none does: whoever revokes a key anywhere has revoked it.
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

// State, then time: a revoked key that has also expired is revoked. Bounds are strict: at the very
// instant of its expiry a key is expired.
[[nodiscard]] latchkey_verdict judge(const Record& record, std::int64_t real_us);
// Likewise for a token that has times of its own: the stricter ones count.
[[nodiscard]] latchkey_verdict judge(const Record& record, const JwtTimes& token,
                                     std::int64_t real_us);

using SourceMask = std::uint32_t;
static_assert(kSourcesMax <= 32, "a SourceMask has a bit for each");
constexpr std::size_t kDigestersMax = 64;

// How presented keys are digested; immutable, shared by the sources that digest alike.
class Digester {
 public:
  // SHA-256 of the text.
  Digester() = default;
  // HMAC-SHA-256 under one pepper version. `counter` is where its successes are counted: the same
  // for as long as the process knows the version, whatever other versions come and go.
  Digester(std::string pepper_version, std::span<const std::uint8_t> secret, std::size_t counter);
  // Of JWTs, by their jti, if this secret signed them. `secret_name` and `counter` as above.
  [[nodiscard]] static Digester of_jwts(std::string secret_name,
                                        std::span<const std::uint8_t> secret, std::size_t counter);

  // What opens a presented key before its jti can be looked up; null: the key is digested as it is.
  [[nodiscard]] const Hs256Key* jwt_key() const { return jwt_key_.get(); }
  // digests[i] of texts[i]; not of JWTs.
  void operator()(std::span<const std::string_view> texts, std::span<Digest> digests) const {
    hmac_ ? hmac_->digest(texts, digests) : sha256(texts, digests);
  }
  // For people: what is done to a key before it is looked up.
  [[nodiscard]] std::string label() const;
  // Of JWTs, the name of the secret. Empty for SHA-256.
  [[nodiscard]] const std::string& pepper_version() const { return pepper_version_; }
  [[nodiscard]] std::size_t counter() const { return counter_; }

 private:
  std::string pepper_version_;
  std::shared_ptr<const HmacKey> hmac_;
  std::shared_ptr<const Hs256Key> jwt_key_;
  std::size_t counter_ = 0;
};

// A source, and which digesters may lead to its rows.
struct Route {
  const KeySet* keys = nullptr;
  std::vector<std::size_t> digesters;  // indexes into Verifier's
  std::string scheme = {};             // how the table stores keys, as the configuration names it
  UseLog* uses = nullptr;              // where answers of `valid` are noted; null: nowhere
};

// What the caller demands of a key besides being good.
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

struct Finding {
  latchkey_verdict verdict = LATCHKEY_UNAVAILABLE;
  bool fresh = false;
  std::uint32_t age_ms = 0;
  // What the same question about a key that no row holds is answered.
  latchkey_verdict verdict_if_unknown = LATCHKEY_UNAVAILABLE;
  bool fresh_if_unknown = false;
  std::uint32_t age_if_unknown_ms = 0;
  const Record* record = nullptr;  // null: no row spoke
  SourceMask held_by = 0;          // every source that knows the key
  std::size_t route = 0;           // that the record came by
  std::size_t digester = 0;
  std::int64_t token_expires_us = kNeverExpires;  // what the presented token says itself

  // For callers who may not learn that a row spoke: nothing in it depends on the rows that hold the
  // key, nor on which sources they are in.
  [[nodiscard]] Finding as_unknown() const {
    Finding unknown;
    unknown.verdict = unknown.verdict_if_unknown = verdict_if_unknown;
    unknown.fresh = unknown.fresh_if_unknown = fresh_if_unknown;
    unknown.age_ms = unknown.age_if_unknown_ms = age_if_unknown_ms;
    return unknown;
  }
};

// One row that holds a key: where it stands, and which digest led there.
struct Sighting {
  std::size_t route = 0;
  std::size_t digester = 0;
  const Record* record = nullptr;
  latchkey_verdict verdict = LATCHKEY_UNAVAILABLE;  // what it would answer by itself, scopes aside
  JwtTimes token = {};  // what the presented token says itself, where only its jti is stored
};

class Verifier {
 public:
  Verifier(std::vector<Digester> digesters, std::vector<Route> routes, FreshnessLimits limits);

  static constexpr std::size_t kBatchMax = KeyMap::kBatchMax;
  // Inside a ReadSection; findings point to records that live as long as the section does. Keys are
  // taken as they are; an empty or too long one, or one with a zero byte (which no PostgreSQL text
  // can hold), is malformed.
  void verify(std::span<const Question> questions, const Now& now,
              std::span<Finding> findings) const;
  // Likewise for one question, and every row that had a say, in the order in which it was heard:
  // the finding is made of these and no others, whatever the writer does meanwhile.
  [[nodiscard]] Finding verify(const Question& question, const Now& now,
                               std::vector<Sighting>& seen) const;

  [[nodiscard]] const std::vector<Digester>& digesters() const { return digesters_; }
  [[nodiscard]] const std::vector<Route>& routes() const { return routes_; }
  [[nodiscard]] const FreshnessLimits& limits() const { return limits_; }

 private:
  struct Ages;
  struct Presented;
  // Rows that hold the key of a question (its index) for which another row was found before.
  using Twins = std::vector<std::pair<std::size_t, Finding>>;
  template <typename Observer>
  void find_all(std::span<const Question> questions, const Now& now, std::span<Finding> findings,
                const Observer& observe) const;
  template <typename Observer>
  void look_up(std::size_t digester, std::span<const Question> questions, const Now& now,
               std::span<Finding> findings, Twins& twins, const Observer& observe) const;
  template <typename Observer>
  void look_up_jwts(std::size_t digester, std::span<const std::string_view> tokens,
                    std::span<const std::size_t> asked, std::span<const Question> questions,
                    const Now& now, std::span<Finding> findings, Twins& twins,
                    const Observer& observe) const;
  template <typename Observer>
  void hear_rows(std::size_t digester, const Presented& presented,
                 std::span<const Question> questions, const Now& now, std::span<Finding> findings,
                 Twins& twins, const Observer& observe) const;
  static void weigh(std::span<Finding> findings, Twins& twins);
  void settle(const Question& question, const Ages& ages, Finding& finding) const;

  std::vector<Digester> digesters_;
  std::vector<Route> routes_;
  std::vector<std::vector<std::size_t>> routes_of_digester_;
  FreshnessLimits limits_;
};

}  // namespace latchkey
