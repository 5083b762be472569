// The base of tests of a verifier over three sources.
#pragma once

#include <gtest/gtest.h>

#include <string_view>

#include "tests/unit/support/three_sources.h"

namespace latchkey::test {

class VerifierTest : public testing::Test, protected ThreeSources {
 protected:
  Outcome ask(std::string_view key, const Terms& terms) const {
    Outcome outcome;
    const Question question{key, &terms};
    verifier_.verify({&question, 1}, now_, {&outcome, 1});
    return outcome;
  }
  Outcome ask(std::string_view key) const { return ask(key, Terms{}); }
  Outcome ask_sources(std::string_view key, SourceMask sources) const {
    Terms terms;
    terms.sources = sources;
    return ask(key, terms);
  }
  void prove(KeySet& keys, std::int64_t age_ns) { keys.freshness.prove(kBootNs - age_ns); }
};

}  // namespace latchkey::test
