// The keys of all map benchmarks: rows like those of a real table, and questions about them. One
// population is held at a time.
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

// Rows of the `api_keys` shape: bigint ids, one of 1000 tenants, one of 16 scope sets. Every other
// row has an expiry in the far future.
class Rows {
 public:
  explicit Rows(ScopeSets& scopes);
  // The views point into this object until the next call. Each `version` has a different subject.
  [[nodiscard]] const RecordFacts& row(std::size_t number, const Digest& digest,
                                       std::size_t version = 0);

 private:
  std::vector<const ScopeSet*> sets_;
  std::string id_, subject_, tenant_;
  RecordFacts facts_;
};

// The digest of keys. kNone: keys have no text, only digest_of(), which saves a minute at ten
// million keys.
enum class Scheme { kNone, kSha256, kHmac, kJwt };

class Population {
 public:
  // Loads `count` rows as the loader does.
  explicit Population(std::size_t count, Scheme scheme = Scheme::kNone);

  // Makes the population on first use. Only the last one used is kept, because they are large.
  static Population& of(std::size_t count, Scheme scheme = Scheme::kNone);

  [[nodiscard]] std::size_t size() const { return count_; }
  [[nodiscard]] Digest digest(std::size_t number) const;
  // The key in the form in which its holder presents it.
  [[nodiscard]] std::string text(std::size_t number) const;
  // The digester of the keys' texts.
  [[nodiscard]] Digester digester() const;

  // A number that is unique to this population within the process.
  [[nodiscard]] std::size_t serial() const { return serial_; }

  Quiescence quiescence;
  KeySet keys{"bench", quiescence};
  KeySetWriter writer{keys, quiescence};
  Rows rows{writer.scopes()};
  double resident_bytes_per_key = 0;  // the growth of the process per key
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

// The resident memory of this process, from /proc/self/statm.
[[nodiscard]] std::size_t resident_bytes();

// Random digests to ask for: of the population's keys, or of unknown keys. At most four million,
// which is more than any cache holds.
using Questions = std::vector<Digest>;
[[nodiscard]] const Questions& hits(const Population& population);
[[nodiscard]] const Questions& misses(const Population& population);

// Random keys to change. The process has one random stream, so a benchmark that is called again
// changes other keys.
[[nodiscard]] std::size_t random_number(const Population& population);
// Returns a different version at each call, so that a row of this version has new content.
[[nodiscard]] std::size_t new_version();

}  // namespace latchkey::bench
