// Three sources and a verifier over them, at a fixed instant.
#pragma once

#include <string>

#include "tests/unit/support/helpers.h"
#include "verify/verifier.h"

namespace latchkey::test {

inline constexpr std::int64_t kRealUs = 1'700'000'000'000'000;
inline constexpr std::int64_t kBootNs = 1'000'000'000'000'000;
inline constexpr std::int64_t kMs = 1'000'000;  // ns
inline constexpr FreshnessLimits kLimits{.bound_ns = 5'000 * kMs, .max_stale_ns = 60'000 * kMs};
inline const std::string kOldPepper = "first pepper", kNewPepper = "second pepper";

// Sources a, b (SHA-256) and c (HMAC, two pepper versions), in this order.
struct ThreeSources {
  ThreeSources() {
    for (KeySet* keys : {&a_, &b_, &c_}) keys->freshness.prove(kBootNs);
  }

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
