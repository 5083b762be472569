// The keys that all map benchmarks share: rows like those of a real table, and what they are asked
// for. One population is held at a time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "verify/verifier.h"

namespace latchkey::bench {

inline constexpr std::uint64_t kSeed = 20260131;

// A row of the `api_keys` shape: bigint ids, one of 1000 tenants, one of 16 scope sets, every other
// one with an expiry far away.
class Rows {
 public:
  explicit Rows(ScopeSets& scopes);
  // Views lead into this object, until the next call. Another `version`, another subject.
  [[nodiscard]] const RecordFacts& row(std::size_t number, const Digest& digest,
                                       std::size_t version = 0);

 private:
  std::vector<const ScopeSet*> sets_;
  std::string id_, subject_, tenant_;
  RecordFacts facts_;
};

// How keys are digested. kNone: there is no text, only digest_of(), which saves a minute at ten
// million.
enum class Scheme { kNone, kSha256, kHmac, kJwt };

class Population {
 public:
  // Loads `count` rows as the loader does.
  explicit Population(std::size_t count, Scheme scheme = Scheme::kNone);

  // Made on first use. Only the last one used is kept: they are large.
  static Population& of(std::size_t count, Scheme scheme = Scheme::kNone);

  [[nodiscard]] std::size_t size() const { return count_; }
  [[nodiscard]] Digest digest(std::size_t number) const;
  // As its holder presents it.
  [[nodiscard]] std::string text(std::size_t number) const;
  // What turns texts into digests.
  [[nodiscard]] Digester digester() const;

  // No other population of this process has it.
  [[nodiscard]] std::size_t serial() const { return serial_; }

  Quiescence quiescence;
  KeySet keys{"bench", quiescence};
  KeySetWriter writer{keys, quiescence};
  Rows rows{writer.scopes()};
  double resident_bytes_per_key = 0;  // what the process grew by, for each key
  double load_seconds = 0;

 private:
  static inline std::size_t made_ = 0;
  std::size_t serial_ = ++made_;
  std::size_t count_;
  Scheme scheme_;
  HmacKey pepper_;
};

// The secret of Scheme::kHmac.
[[nodiscard]] std::span<const std::uint8_t> pepper();

// Of this process, from /proc/self/statm.
[[nodiscard]] std::size_t resident_bytes();

// Random digests to ask for: of the population's keys, or of others. At most four million: more
// than any cache holds.
using Questions = std::vector<Digest>;
[[nodiscard]] const Questions& hits(const Population& population);
[[nodiscard]] const Questions& misses(const Population& population);

// Random keys to change. One stream for the process: a benchmark that is called again changes
// others.
[[nodiscard]] std::size_t random_number(const Population& population);
// Never the same twice, so that a row of this version says something new.
[[nodiscard]] std::size_t new_version();

}  // namespace latchkey::bench
