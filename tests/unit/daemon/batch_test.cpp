// Several connections whose requests one batch answers: each gets the replies that it would get
// alone, whoever is beside it.
#include "daemon/unix/batch.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "tests/unit/support/conversation_fixture.h"
#include "tests/unit/support/helpers.h"

namespace latchkey {
namespace {

using test::ConversationTest;
using test::describe;
using test::everything;
using test::ping;
using test::status;
using test::terms;
using test::text_of;
using test::verify;
using test::why;
using testing::ElementsAre;
using testing::StartsWith;

struct Party {
  explicit Party(const Rights& given) : conversation(given), rights(given) {}
  void hears(std::string_view bytes) {
    ASSERT_LE(bytes.size(), in.writable().size());
    std::memcpy(in.writable().data(), bytes.data(), bytes.size());
    in.commit(bytes.size());
    talk += bytes;
  }

  FrameBuffer in{LATCHKEY_REQUEST_BYTES_MAX};
  OutBuffer out;
  Conversation conversation;
  Rights rights;
  std::string talk;
  bool closed = false;
};

class BatchTest : public ConversationTest {
 protected:
  // One round of turns; how each went on.
  std::vector<Conversation::Next> round(std::vector<std::unique_ptr<Party>>& parties) {
    for (const auto& party : parties) {
      if (party->closed) continue;
      party->conversation.take(party->in, party->out, context_, batch_);
    }
    batch_.answer(context_);
    std::vector<Conversation::Next> nexts;
    for (const auto& party : parties) {
      nexts.push_back(party->closed ? Conversation::Next::kClose
                                    : party->conversation.finish(party->in, party->out, context_));
      party->closed = nexts.back() == Conversation::Next::kClose;
    }
    return nexts;
  }
  std::string random_request(test::Random& random, std::uint64_t id) {
    static const std::vector<std::string_view> keys{"good",    "revoked", "disabled", "unknown",
                                                    "expired", "early",   "only b",   ""};
    VerifyTerms demanded;
    if (random.below(4) == 0) demanded.all_scopes = {random.below(2) == 0 ? "read" : "admin"};
    if (random.below(4) == 0) demanded.source = random.below(2) == 0 ? "a" : "no-such";
    demanded.want_claims = random.below(2) == 0;
    demanded.want_metadata = random.below(4) == 0;
    switch (random.below(12)) {
      case 0: return ping(id);
      case 1: return why(id, keys[random.below(keys.size())]);
      case 2: return status(id);
      case 3: return test::frame(LATCHKEY_VERIFY, id, "no request");
      default: {
        std::vector<std::string_view> asked;
        for (std::size_t i = random.below(5) + 1; i > 0; --i) {
          asked.push_back(keys[random.below(keys.size())]);
        }
        return verify(id, asked, demanded);
      }
    }
  }
};

TEST_F(BatchTest, GivesEachConnectionTheRepliesThatItWouldGetAlone) {
  test::Random random;
  for (int i = 0; i < 300; ++i) {
    std::vector<std::unique_ptr<Party>> parties;
    for (std::size_t n = random.below(20) + 1; n > 0; --n) {
      Rights rights{.sources = static_cast<SourceMask>(random.below(8)),
                    .all_sources = random.below(2) == 0,
                    .reasons = random.below(2) == 0,
                    .metadata = random.below(2) == 0};
      auto party = std::make_unique<Party>(rights);
      for (std::uint64_t id = random.below(4); id > 0; --id) {
        party->hears(random_request(random, id));
      }
      parties.push_back(std::move(party));
    }
    auto nexts = round(parties);
    while (std::ranges::count(nexts, Conversation::Next::kWrite) > 0) nexts = round(parties);
    for (std::size_t n = 0; n < parties.size(); ++n) {
      Party& party = *parties[n];
      const Heard alone = say(party.talk, party.rights);
      EXPECT_EQ(describe(text_of(party.out)), describe(alone.replies)) << "round " << i;
      EXPECT_EQ(nexts[n] == Conversation::Next::kClose, alone.closed);
    }
  }
}

TEST_F(BatchTest, ReadsTheClockOnceForAllConnections) {
  std::vector<std::unique_ptr<Party>> parties;
  for (int i = 0; i < 16; ++i) {
    parties.push_back(std::make_unique<Party>(everything()));
    parties.back()->hears(verify(7, {"good"}));
  }
  clock_readings_ = 0;
  round(parties);
  EXPECT_EQ(clock_readings_, 1);
  for (const auto& party : parties) {
    EXPECT_THAT(describe(text_of(party->out)), ElementsAre(StartsWith("7: valid")));
  }
}

TEST_F(BatchTest, CountsUnknownKeysForTheCallerThatAsked) {
  std::vector<std::unique_ptr<Party>> parties;
  for (int i = 0; i < 3; ++i) parties.push_back(std::make_unique<Party>(everything()));
  parties[0]->hears(verify(1, {"good"}));
  parties[1]->hears(verify(1, {"unknown", "good", "also unknown"}));
  parties[2]->hears(verify(1, {"unknown"}));
  round(parties);
  EXPECT_EQ(parties[0]->conversation.take_unknown(), 0U);
  EXPECT_EQ(parties[1]->conversation.take_unknown(), 2U);
  EXPECT_EQ(parties[2]->conversation.take_unknown(), 1U);
}

// More requests, keys and scopes than one batch holds.
TEST_F(BatchTest, AnswersInPartsWhatDoesNotFit) {
  context_.turn_work = 1'000'000;
  VerifyTerms scoped;
  for (int i = 0; i < LATCHKEY_SCOPES_MAX; ++i) {
    scoped.all_scopes.push_back("read");
    scoped.any_scopes.push_back("write");
  }
  const std::vector<std::string_view> many(LATCHKEY_BATCH_KEYS_MAX, "good");
  std::vector<std::unique_ptr<Party>> parties;
  for (int i = 0; i < 80; ++i) {
    parties.push_back(std::make_unique<Party>(everything()));
    for (std::uint64_t id = 1; id <= 9; ++id) parties.back()->hears(verify(id, {"good"}, scoped));
    parties.back()->hears(verify(10, many));
  }
  round(parties);
  for (const auto& party : parties) {
    const auto replies = describe(text_of(party->out));
    ASSERT_EQ(replies.size(), 10U);
    for (std::size_t i = 0; i < replies.size(); ++i) {
      EXPECT_THAT(replies[i], StartsWith(std::to_string(i + 1) + ": valid"));
    }
  }
}

}  // namespace
}  // namespace latchkey
