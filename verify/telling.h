// Turns an outcome into the answer for a caller, for every door: counts the verdict, reduces the
// outcome to the caller's rights, records the use of the key, and collects the claims. A door only
// encodes the Answer; it decides nothing.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

#include "base/bytes.h"
#include "base/counter.h"
#include "keymap/use_log.h"
#include "latchkey/wire.h"
#include "verify/rights.h"
#include "verify/verifier.h"

namespace latchkey {

// The verdicts of one worker, which is the only writer.
struct VerdictStats {
  std::array<Counter, LATCHKEY_VERDICTS> verdicts;  // as found
  std::array<Counter, LATCHKEY_VERDICTS> told;      // as sent to the caller
  // Verdicts as found, by the source of the deciding row; kNoSource: there is none. Every key is
  // counted in the same way, so that a refused key takes no longer than an unknown one.
  static constexpr std::size_t kNoSource = kSourcesMax;
  std::array<std::array<Counter, LATCHKEY_VERDICTS>, kSourcesMax + 1> verdicts_by_source;
  std::array<Counter, kDigestersMax> accepted_by_pepper;  // by Digester::counter()

  [[nodiscard]] const Counter& accepted(std::size_t source) const {
    return verdicts_by_source[source][LATCHKEY_VALID];
  }
};

// The parts of an answer that a request asks for.
struct Wanted {
  bool claims = false;
  bool metadata = false;
};

// A complete answer: verdict, age, and the claims that this caller may learn.
class Answer {
 public:
  latchkey_verdict verdict = LATCHKEY_UNAVAILABLE;
  bool fresh = false;
  std::uint32_t age_ms = 0;

  Answer() = default;
  Answer(const Answer&) = delete;  // claims() may point into it
  Answer& operator=(const Answer&) = delete;

  // Encoded claims (wire.h, latchkey_claim). They live as long as the ReadSection and this object.
  [[nodiscard]] std::span<const Bytes> claims() const { return std::span(parts_).first(count_); }

 private:
  friend class Telling;
  void add(Bytes claim) { parts_[count_++] = claim; }

  std::array<Bytes, 6> parts_;
  std::size_t count_ = 0;
  std::array<std::uint8_t, LATCHKEY_CLAIM_BYTES + sizeof(std::int64_t)> expires_{};
};

// Makes the answers of one batch to one caller, inside a ReadSection. All references outlive it.
class Telling {
 public:
  // `worker` and `moment` are for the UseLog.
  Telling(const Verifier& verifier, const Rights& rights, VerdictStats& stats, std::size_t worker,
          const UseMoment& moment)
      : verifier_(verifier), rights_(rights), stats_(stats), worker_(worker), moment_(moment) {}

  void tell(const Outcome& outcome, Wanted wanted, Answer& answer);
  // The number of keys answered as unknown.
  [[nodiscard]] std::uint64_t unknown() const { return unknown_; }

 private:
  void count(const Outcome& outcome) const;
  void note_use(const Outcome& outcome) const;
  void add_claims(const Outcome& told, Answer& answer) const;

  const Verifier& verifier_;
  const Rights& rights_;
  VerdictStats& stats_;
  std::size_t worker_;
  const UseMoment& moment_;
  std::uint64_t unknown_ = 0;
};

// The sources that a request names; an empty name means all sources that the caller may ask.
// nullopt: there is no source of this name. A caller without the right to all sources must not
// learn which others exist, so it gets the empty mask for each of them, existing or not.
[[nodiscard]] std::optional<SourceMask> sources_named(std::string_view name, const Rights& rights,
                                                      const Verifier& verifier);

}  // namespace latchkey
