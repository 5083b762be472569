// Three sources and a verifier over them, at a fixed instant.
#pragma once

#include <gtest/gtest.h>

#include <string>
#include <string_view>

#include "keymap/verdict.h"
#include "tests/unit/helpers.h"

namespace latchkey::test {

inline constexpr std::int64_t kRealUs = 1'700'000'000'000'000;
inline constexpr std::int64_t kBootNs = 1'000'000'000'000'000;
inline constexpr std::int64_t kMs = 1'000'000;  // ns
inline constexpr FreshnessLimits kLimits{.bound_ns = 5'000 * kMs, .max_stale_ns = 60'000 * kMs};
inline const std::string kOldPepper = "first pepper", kNewPepper = "second pepper";

// Sources a, b (SHA-256) and c (HMAC, two pepper versions), in this order.
class VerifierTest : public testing::Test {
 protected:
  VerifierTest() {
    for (KeySet* keys : {&a_, &b_, &c_}) keys->freshness.prove(kBootNs);
  }

  Finding ask(std::string_view key, const Terms& terms) const {
    Finding finding;
    const Question question{key, &terms};
    verifier_.verify({&question, 1}, now_, {&finding, 1});
    return finding;
  }
  Finding ask(std::string_view key) const { return ask(key, Terms{}); }
  Finding ask_sources(std::string_view key, SourceMask sources) const {
    Terms terms;
    terms.sources = sources;
    return ask(key, terms);
  }
  void prove(KeySet& keys, std::int64_t age_ns) { keys.freshness.prove(kBootNs - age_ns); }

  Quiescence quiescence_;
  KeySet a_{"a", quiescence_}, b_{"b", quiescence_}, c_{"c", quiescence_};
  KeySetWriter in_a_{a_, quiescence_}, in_b_{b_, quiescence_}, in_c_{c_, quiescence_};
  Verifier verifier_{{Digester(), Digester("v1", as_bytes(kOldPepper), 0),
                      Digester("v2", as_bytes(kNewPepper), 1)},
                     {{&a_, {0}}, {&b_, {0}}, {&c_, {1, 2}}},
                     kLimits};
  Now now_{kRealUs, kBootNs};
};

}  // namespace latchkey::test
