// To a caller without the right to reasons, a refused key looks like an unknown key: the replies
// to both have the same bytes, for all states of sources and rows, and for all demands. The tests
// compare random worlds.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <memory>
#include <string>
#include <vector>

#include "base/wire_names.h"
#include "daemon/unix/batch.h"
#include "daemon/unix/conversation.h"
#include "tests/reference/client_codec.h"
#include "tests/unit/support/helpers.h"
#include "tests/unit/support/tokens.h"
#include "tests/unit/support/turn.h"
#include "tests/unit/support/verifier_fixture.h"

namespace latchkey {
namespace {

using test::kBootNs;
using test::kMs;
using test::kRealUs;

const std::string kSecret(32, 's');
constexpr std::size_t kKeys = 12, kSources = 4;

// Tokens, so that a source of any scheme can hold the same text. All have the same length.
std::string key_text(const std::string& jti) {
  return test::token(kSecret, R"({"jti":")" + jti + R"("})");
}
std::string jti_of(char kind, std::size_t number) {
  return std::string(1, kind) + std::to_string(10 + number);
}

// Four sources (two of SHA-256, one of HMAC under two peppers, one of jtis), each with a random
// age and with rows in all states.
class World {
 public:
  explicit World(test::Random& random) : random_(random) {
    for (std::size_t i = 0; i < kSources; ++i) {
      sets_.push_back(
          std::make_unique<KeySet>(std::string(1, static_cast<char>('a' + i)), quiescence_));
      writers_.push_back(std::make_unique<KeySetWriter>(*sets_.back(), quiescence_));
      prove(*sets_.back());
    }
    for (std::size_t key = 0; key < kKeys; ++key) {
      known_.push_back(key_text(jti_of('k', key)));
      unknown_.push_back(key_text(jti_of('u', key)));
      for (std::size_t rows = 1 + random_.below(3); rows > 0; --rows) add_row(key);
    }
    make_verifier();
  }

  [[nodiscard]] const std::string& known(std::size_t key) const { return known_[key]; }
  [[nodiscard]] const std::string& unknown(std::size_t key) const { return unknown_[key]; }
  [[nodiscard]] const Verifier& verifier() const { return *verifier_; }
  [[nodiscard]] Now now() const { return {kRealUs, kBootNs}; }
  [[nodiscard]] Quiescence& quiescence() { return quiescence_; }

 private:
  void prove(KeySet& set) {
    constexpr std::array<std::int64_t, 7> kAges = {0, 400, 3'000, 6'000, 30'000, 59'999, 61'000};
    const std::size_t age = random_.below(kAges.size() + 1);
    if (age < kAges.size()) set.freshness.prove(kBootNs - kAges[age] * kMs);  // else never
  }

  void add_row(std::size_t key) {
    const std::size_t source = random_.below(kSources);
    const std::string id = std::to_string(++rows_);
    RecordFacts facts;
    facts.key_id = id;
    facts.digest = digest(source, key);
    facts.state = RowState::kActive;
    facts.subject = "subject";
    facts.tenant = "tenant";
    facts.metadata = "{}";
    facts.scopes =
        random_.below(2) == 0 ? nullptr : writers_[source]->scopes().intern({"read", "write"});
    switch (random_.below(8)) {
      case 0: facts.state = RowState::kRevoked; break;
      case 1: facts.state = RowState::kDisabled; break;
      case 2: facts.state = RowState::kDeleted; break;
      case 3: facts.expires_us = kRealUs - static_cast<std::int64_t>(random_.below(2)); break;
      case 4: facts.not_before_us = kRealUs + 1; break;
      default: facts.expires_us = kRealUs + 1'000'000;
    }
    writers_[source]->upsert(facts);
  }
  Digest digest(std::size_t source, std::size_t key) {
    if (source < 2) return sha256(known_[key]);
    if (source == 3) return jti_digests(jti_of('k', key)).text;
    const std::string& pepper = random_.below(2) == 0 ? test::kOldPepper : test::kNewPepper;
    return HmacKey(test::as_bytes(pepper)).digest(known_[key]);
  }

  void make_verifier() {
    verifier_ = std::make_unique<Verifier>(
        std::vector<Digester>{Digester(), Digester("v1", test::as_bytes(test::kOldPepper), 0),
                              Digester("v2", test::as_bytes(test::kNewPepper), 1),
                              Digester::of_jwts("secret", test::as_bytes(kSecret), 2)},
        std::vector<Route>{{sets_[0].get(), {0}},
                           {sets_[1].get(), {0}},
                           {sets_[2].get(), {1, 2}},
                           {sets_[3].get(), {3}}},
        test::kLimits);
  }

  test::Random& random_;
  int rows_ = 0;
  std::vector<std::string> known_, unknown_;
  Quiescence quiescence_;
  std::vector<std::unique_ptr<KeySet>> sets_;
  std::vector<std::unique_ptr<KeySetWriter>> writers_;
  std::unique_ptr<Verifier> verifier_;
};

// The replies to one caller, and their traces that others could see.
struct Heard {
  std::string replies;
  std::vector<Conversation::Next> nexts;
  std::uint64_t unknown = 0;
  std::vector<std::uint64_t> told;  // metrics that any user may read
};

Heard say(World& world, const std::string& bytes, const Rights& rights) {
  Quiescence::Reader reader(world.quiescence(), "reader");
  WorkerStats stats;
  WorkerContext context;
  context.verifier = &world.verifier();
  context.reader = &reader;
  context.stats = &stats;
  context.turn_work = WorkerContext::kTurnWorkAmongOthers;
  context.clock = [&world] { return world.now(); };
  Batch batch;
  FrameBuffer in(LATCHKEY_REQUEST_BYTES_MAX);
  const auto room = in.writable();
  std::copy(bytes.begin(), bytes.end(), room.begin());
  in.commit(bytes.size());
  Conversation conversation(rights);
  Heard heard;
  do {
    OutBuffer out;
    heard.nexts.push_back(test::turn(conversation, in, out, context, batch));
    heard.replies += as_text(out.bytes());
  } while (heard.nexts.back() == Conversation::Next::kWrite);
  heard.unknown = conversation.take_unknown();
  for (const Counter& count : stats.told) heard.told.push_back(count.get());
  return heard;
}

Rights random_rights(test::Random& random) {
  Rights rights;
  rights.all_sources = random.below(2) == 0;
  rights.sources = rights.all_sources ? 0b1111 : static_cast<SourceMask>(1 + random.below(15));
  rights.metadata = random.below(2) == 0;
  return rights;
}

VerifyTerms random_terms(test::Random& random) {
  VerifyTerms terms;
  constexpr std::array<std::uint32_t, 6> kMaxAges = {0,      500,    2'000,
                                                     10'000, 40'000, LATCHKEY_MAX_AGE_ANY};
  terms.max_age_ms = kMaxAges[random.below(kMaxAges.size())];
  const std::array<const char*, 7> sources = {"", "", "a", "b", "c", "d", "no-such"};
  terms.source = sources[random.below(sources.size())];
  terms.want_claims = random.below(2) == 0;
  terms.want_metadata = random.below(2) == 0;
  const std::array<const char*, 3> scopes = {"read", "write", "admin"};
  if (random.below(3) == 0) terms.all_scopes.emplace_back(scopes[random.below(3)]);
  if (random.below(3) == 0) terms.any_scopes.emplace_back(scopes[random.below(3)]);
  return terms;
}

// The verdict for a caller with the right to reasons.
latchkey_verdict found(World& world, const std::string& key, const VerifyTerms& terms,
                       Rights rights) {
  rights.reasons = true;
  OutBuffer request;
  encode_verify(request, 1, terms, {{std::string_view(key)}});
  const Heard heard = say(world, std::string(as_text(request.bytes())), rights);
  std::vector<DecodedAnswer> answers;
  const Bytes body = test::as_bytes(heard.replies).subspan(LATCHKEY_HEADER_BYTES);
  if (decode_verified(body, answers)) return LATCHKEY_UNKNOWN;  // an error: no such source
  return answers.at(0).verdict;
}

bool is_told(latchkey_verdict verdict) {
  return verdict == LATCHKEY_VALID || verdict == LATCHKEY_INSUFFICIENT_SCOPE;
}

TEST(HiddenReasons, AreTheReplyToAnUnknownKeyByteForByte) {
  test::Random random;
  std::array<int, LATCHKEY_VERDICTS> tried{};
  for (int round = 0; round < 400; ++round) {
    World world(random);
    for (int question = 0; question < 8; ++question) {
      const Rights rights = random_rights(random);
      std::string asked, as_unknown;
      for (std::uint64_t id = 1 + random.below(4); id > 0; --id) {
        const VerifyTerms terms = random_terms(random);
        std::vector<std::string_view> keys, others;
        for (std::size_t n = 1 + random.below(6); n > 0; --n) {
          const std::size_t key = random.below(kKeys);
          const latchkey_verdict verdict = found(world, world.known(key), terms, rights);
          keys.push_back(world.known(key));
          others.push_back(is_told(verdict) ? world.known(key) : world.unknown(key));
          ++tried[verdict];
        }
        OutBuffer one, other;
        encode_verify(one, id, terms, keys);
        encode_verify(other, id, terms, others);
        asked += as_text(one.bytes());
        as_unknown += as_text(other.bytes());
      }
      const Heard heard = say(world, asked, rights), other = say(world, as_unknown, rights);
      ASSERT_EQ(heard.replies, other.replies) << "round " << round << ", question " << question;
      ASSERT_EQ(heard.nexts, other.nexts);
      ASSERT_EQ(heard.unknown, other.unknown) << "what is counted as a guess";
      ASSERT_EQ(heard.told, other.told);
    }
  }
  for (const latchkey_verdict verdict :
       {LATCHKEY_VALID, LATCHKEY_INSUFFICIENT_SCOPE, LATCHKEY_REVOKED, LATCHKEY_DISABLED,
        LATCHKEY_DELETED, LATCHKEY_EXPIRED, LATCHKEY_NOT_YET_VALID, LATCHKEY_UNAVAILABLE}) {
    EXPECT_GT(tried[verdict], 20) << verdict_name(verdict) << " was hardly tried";
  }
}

// The motivating example: the revoked key's source is young enough, another one is not.
using HiddenReason = test::VerifierTest;
TEST_F(HiddenReason, IsUnavailableWhereAnUnknownKeyIs) {
  in_a_.upsert(test::row("1", "revoked", RowState::kRevoked));
  prove(a_, 1'000 * kMs);
  prove(b_, 4'000 * kMs);
  Terms terms;
  terms.max_age_ms = 2'000;
  EXPECT_EQ(ask("revoked", terms).verdict, LATCHKEY_REVOKED) << "to those who may know";
  const Outcome told = ask("revoked", terms).as_unknown(), unknown = ask("nobody's", terms);
  EXPECT_EQ(told.verdict, LATCHKEY_UNAVAILABLE);
  EXPECT_EQ(unknown.verdict, LATCHKEY_UNAVAILABLE);
  EXPECT_EQ(told.age_ms, unknown.age_ms);
  EXPECT_EQ(told.fresh, unknown.fresh);
  EXPECT_EQ(told.record, nullptr);
}

}  // namespace
}  // namespace latchkey
