// liblatchkey without a socket: replies in order, and the fate of requests when the connection is
// lost, a deadline passes, or a reply is invalid. The tests move the bytes by hand.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <set>
#include <string>
#include <vector>

extern "C" {
#include "client/c/client.h"
}
#include "latchkey/client.h"

namespace latchkey {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

std::string little(std::uint64_t value, int bytes) {
  std::string text;
  for (int i = 0; i < bytes; ++i) text += static_cast<char>(value >> (8 * i));
  return text;
}

// The first request id of a client, which may be any number.
std::uint64_t ids_from = 0;

std::string frame(int type, std::uint64_t id, const std::string& body = "") {
  if (id != 0) id += ids_from;
  return little(1, 1) + little(static_cast<std::uint64_t>(type), 1) + little(0, 2) +
         little(16 + body.size(), 4) + little(id, 8) + body;
}

std::string verified(std::uint64_t id, int verdict) {
  return frame(
      LATCHKEY_VERIFIED, id,
      little(1, 4) + little(static_cast<std::uint64_t>(verdict), 1) + little(1, 1) + little(0, 6));
}

std::string error(std::uint64_t id, int code, const std::string& text) {
  return frame(LATCHKEY_ERROR, id,
               little(static_cast<std::uint64_t>(code), 2) + little(text.size(), 2) + text);
}

class ClientConversation : public testing::Test {
 protected:
  ClientConversation() {
    EXPECT_NE(client_, nullptr);
    ids_from = client_->talk.last_id;
  }
  ~ClientConversation() override { latchkey_close(client_); }

  // Each request is identified by the number that is its context.
  int ask(int number, const std::string& key = "key") {
    const latchkey_key bytes{key.data(), key.size()};
    return latchkey_start_verify(client_, nullptr, &bytes, 1,
                                 &contexts_.at(static_cast<std::size_t>(number)));
  }

  std::string drain(std::size_t room = 1 << 20) {
    std::string bytes(room, '\0');
    bytes.resize(latchkey_drain(client_, bytes.data(), room));
    return bytes;
  }

  void feed(const std::string& bytes) {
    ASSERT_EQ(latchkey_feed(client_, bytes.data(), bytes.size()), 0);
  }

  // "0 valid", "1 closed", ... for all replies so far.
  std::vector<std::string> taken() {
    std::vector<std::string> all;
    latchkey_reply reply;
    while (latchkey_take(client_, &reply) != 0) {
      std::string what = std::to_string(static_cast<int*>(reply.context) - contexts_.data()) + " ";
      if (reply.failure == 0 && reply.type == LATCHKEY_VERIFY) {
        what += latchkey_verdict_name(reply.answers[0].verdict);
      } else {
        what += latchkey_failure_name(reply.failure);
        if (reply.refusal != 0) what += std::string(" ") + latchkey_refusal_name(reply.refusal);
      }
      if (reply.failure != 0) {
        text_ = reply.text;
        // A caller that looks only at the verdict must not find a yes.
        if (reply.type == LATCHKEY_VERIFY) {
          EXPECT_EQ(reply.answers[0].verdict, LATCHKEY_UNAVAILABLE);
        }
      }
      all.push_back(what);
    }
    return all;
  }

  latchkey_client* client_ = latchkey_open("/nowhere");
  std::vector<int> contexts_ = std::vector<int>(LATCHKEY_PENDING_MAX + 2);
  std::string text_;
};

// A reply to a request of another process, or of this one before a fork, must match no request.
TEST_F(ClientConversation, RequestIdsBeginWhereNobodyCanForesee) {
  std::set<std::uint64_t> begins;
  for (int i = 0; i < 100; ++i) {
    latchkey_client* other = latchkey_open("/nowhere");
    EXPECT_LT(other->talk.last_id, std::uint64_t{1} << 62) << "there is room for all that follow";
    begins.insert(other->talk.last_id);
    latchkey_close(other);
  }
  EXPECT_EQ(begins.size(), 100U);
  ASSERT_EQ(ask(0), 0);
  drain();
  ids_from += 1000;
  feed(verified(1, 0));
  EXPECT_THAT(taken(), ElementsAre("0 protocol"));
}

TEST_F(ClientConversation, RepliesComeInTheOrderOfTheRequestsHoweverTheirBytesArrive) {
  for (int i = 0; i < 3; ++i) EXPECT_EQ(ask(i), 0);
  EXPECT_EQ(latchkey_pending(client_), 3U);
  EXPECT_EQ(drain().size(), 3U * (16 + 12 + 2 + 3));
  const std::string replies = verified(1, 0) + verified(2, 3) + verified(3, 1);
  std::vector<std::string> all;
  for (const char byte : replies) {
    feed(std::string(1, byte));
    for (const auto& reply : taken()) all.push_back(reply);
  }
  EXPECT_THAT(all, ElementsAre("0 valid", "1 revoked", "2 unknown"));
  EXPECT_EQ(latchkey_pending(client_), 0U);
}

TEST_F(ClientConversation, AReplyThatCanBeTakenIsDueAtOnce) {
  EXPECT_EQ(latchkey_due_ms(client_), -1);
  latchkey_set_timeout(client_, 60000);
  ask(0);
  drain();
  ask(1);
  drain();
  feed(verified(1, 0).substr(0, 20));
  EXPECT_GT(latchkey_due_ms(client_), 0);
  feed(verified(1, 0).substr(20));
  EXPECT_EQ(latchkey_due_ms(client_), 0);
  EXPECT_THAT(taken(), ElementsAre("0 valid"));
  EXPECT_GT(latchkey_due_ms(client_), 1000);
  latchkey_lost(client_);
  EXPECT_EQ(latchkey_due_ms(client_), 0);
  EXPECT_THAT(taken(), ElementsAre("1 closed"));
  EXPECT_EQ(latchkey_due_ms(client_), -1);
}

TEST_F(ClientConversation, WhatIsSentIsGoneAndASmallBufferTakesItInParts) {
  ask(0, "secret");
  std::string sent;
  for (std::string part = drain(5); !part.empty(); part = drain(5)) sent += part;
  EXPECT_THAT(sent, HasSubstr("secret"));
  EXPECT_THAT(drain(), IsEmpty());
  feed(verified(1, 0));
  EXPECT_THAT(taken(), ElementsAre("0 valid"));
}

TEST_F(ClientConversation, ALostConnectionCostsWhatWasUnderWayAndNotWhatItHasAnswered) {
  for (int i = 0; i < 3; ++i) ask(i);
  drain();
  feed(verified(1, 0) + verified(2, 0).substr(0, 20));
  latchkey_lost(client_);
  EXPECT_EQ(latchkey_broken(client_), 1);
  EXPECT_THAT(drain(), IsEmpty());  // a new connection begins once the old one's replies are taken
  ask(3);
  EXPECT_THAT(taken(), ElementsAre("0 valid", "1 closed", "2 closed"));
  EXPECT_THAT(text_, HasSubstr("closed"));
  EXPECT_EQ(drain().size(), 33U);
  feed(verified(4, 1));
  EXPECT_THAT(taken(), ElementsAre("3 unknown"));
}

TEST_F(ClientConversation, WhatWasNotSentYetWaitsForTheNextConnection) {
  ask(0);
  latchkey_lost(client_);
  EXPECT_THAT(taken(), IsEmpty());
  EXPECT_EQ(drain().size(), 33U);
  feed(verified(1, 0));
  EXPECT_THAT(taken(), ElementsAre("0 valid"));
}

TEST_F(ClientConversation, ARefusedRequestCostsOnlyItself) {
  for (int i = 0; i < 2; ++i) ask(i);
  drain();
  feed(error(1, LATCHKEY_UNKNOWN_SOURCE, "no such source") + verified(2, 0));
  EXPECT_THAT(taken(), ElementsAre("0 refused unknown_source", "1 valid"));
  EXPECT_EQ(latchkey_broken(client_), 0);
}

TEST_F(ClientConversation, ARefusedConnectionCostsAll) {
  for (int i = 0; i < 2; ++i) ask(i);
  drain();
  feed(error(0, LATCHKEY_NOT_ALLOWED, "no rule\nadmits you"));
  EXPECT_THAT(taken(), ElementsAre("0 refused not_allowed", "1 refused not_allowed"));
  EXPECT_THAT(text_, HasSubstr("no rule?admits you"));
  EXPECT_EQ(latchkey_broken(client_), 1);
}

TEST_F(ClientConversation, NonsenseEndsTheConnection) {
  const std::string nonsense[] = {
      "HTTP/1.1 400 Bad Request\r\n\r\n",
      verified(2, 0),                   // for another request
      frame(LATCHKEY_PONG, 1),          // a reply of another type
      frame(LATCHKEY_PING, 1),          // not a reply
      frame(LATCHKEY_VERIFIED, 1, ""),  // truncated
      verified(1, LATCHKEY_VERDICTS),   // not a verdict
  };
  std::uint64_t id = 1;
  for (const std::string& bytes : nonsense) {
    latchkey_client* fresh = latchkey_open("/nowhere");
    std::swap(client_, fresh);
    latchkey_close(fresh);
    ask(0);
    ask(1);
    drain();
    feed(bytes);
    feed(verified(id, 0));  // nothing after it counts
    EXPECT_THAT(taken(), ElementsAre("0 protocol", "1 protocol")) << bytes;
    EXPECT_EQ(latchkey_broken(client_), 1);
  }
}

TEST_F(ClientConversation, NonsenseThatNobodyAskedForEndsTheConnection) {
  feed(verified(1, 0));
  EXPECT_THAT(taken(), IsEmpty());
  EXPECT_EQ(latchkey_broken(client_), 1);
}

TEST_F(ClientConversation, TooMuchUnderWayIsRefusedAndChangesNothing) {
  for (int i = 0; i < LATCHKEY_PENDING_MAX; ++i) {
    ASSERT_EQ(ask(i), 0);
    drain();
  }
  EXPECT_EQ(ask(LATCHKEY_PENDING_MAX), LATCHKEY_FAILED_FULL);
  EXPECT_EQ(latchkey_pending(client_), std::size_t{LATCHKEY_PENDING_MAX});
  feed(verified(1, 0));
  EXPECT_THAT(taken(), ElementsAre("0 valid"));
  EXPECT_EQ(ask(LATCHKEY_PENDING_MAX), 0);
}

TEST_F(ClientConversation, TooMuchUnsentIsRefused) {
  const std::string key(LATCHKEY_KEY_BYTES_MAX, 'k');
  int asked = 0;
  while (ask(asked, key) == 0) ++asked;
  EXPECT_EQ(asked, (LATCHKEY_UNSENT_BYTES_MAX + 4125) / 4126);
}

TEST_F(ClientConversation, AnEndlessStreamIsNotKept) {
  ask(0);
  drain();
  const std::string part(1 << 16, '\1');
  int fed = 0;
  while (latchkey_feed(client_, part.data(), part.size()) == 0) ++fed;
  EXPECT_LE(fed, 18);  // LATCHKEY_REPLY_BYTES_MAX and one part more
  EXPECT_THAT(taken(), ElementsAre("0 protocol"));
}

TEST_F(ClientConversation, WhatCannotBeAskedIsNotSent) {
  const latchkey_key key{"key", 3};
  EXPECT_EQ(latchkey_start_verify(client_, nullptr, &key, 0, nullptr), LATCHKEY_FAILED_ARGUMENT);
  EXPECT_EQ(latchkey_start_verify(client_, nullptr, nullptr, 1, nullptr), LATCHKEY_FAILED_ARGUMENT);
  latchkey_question question = {};  // zeros: LATCHKEY_QUESTION_INIT was forgotten
  EXPECT_EQ(latchkey_start_verify(client_, &question, &key, 1, nullptr), LATCHKEY_FAILED_ARGUMENT);
  EXPECT_EQ(latchkey_start_sync(client_, 0, nullptr), LATCHKEY_FAILED_ARGUMENT);
  EXPECT_EQ(latchkey_start_sync(client_, 60001, nullptr), LATCHKEY_FAILED_ARGUMENT);
  EXPECT_THAT(drain(), IsEmpty());
  EXPECT_EQ(latchkey_due_ms(client_), -1);
  latchkey_answer answer;
  ask(0);  // a blocking call would take its reply
  EXPECT_EQ(latchkey_verify(client_, "key", 3, nullptr, &answer), LATCHKEY_FAILED_ARGUMENT);
  EXPECT_EQ(answer.verdict, LATCHKEY_UNAVAILABLE);
}

// ---- deadlines, with the clock as an argument

class ClientDeadline : public testing::Test {
 protected:
  ClientDeadline() {
    talk_.soonest_ms = UINT64_MAX;
    talk_.answers = answers_;
    ids_from = 0;
  }
  ~ClientDeadline() override {
    talk_.answers = nullptr;
    lk_conversation_free(&talk_);
  }

  void start(std::uint64_t deadline_ms) {
    const lk_request ping = {LATCHKEY_PING, LATCHKEY_QUESTION_INIT, nullptr, 0, 0};
    ASSERT_EQ(lk_start(&talk_, &ping, deadline_ms, nullptr), 0);
  }
  std::vector<int> failures() {
    std::vector<int> all;
    latchkey_reply reply;
    while (lk_take(&talk_, &reply)) all.push_back(reply.failure);
    return all;
  }

  latchkey_answer answers_[1];
  lk_conversation talk_ = {};
};

TEST_F(ClientDeadline, PassesForTheOneAndCostsTheOthersTheConnection) {
  start(200);
  start(100);
  start(300);
  EXPECT_FALSE(lk_expired(&talk_, 99));
  EXPECT_TRUE(lk_expired(&talk_, 100));
  lk_fail(&talk_, LATCHKEY_FAILED_TIMEOUT, 100);
  EXPECT_THAT(failures(),
              ElementsAre(LATCHKEY_FAILED_CLOSED, LATCHKEY_FAILED_TIMEOUT, LATCHKEY_FAILED_CLOSED));
  EXPECT_FALSE(lk_expired(&talk_, 1000));
  EXPECT_TRUE(lk_renew(&talk_));
}

TEST_F(ClientDeadline, OfARequestThatIsAnsweredDoesNotPass) {
  start(100);
  start(200);
  lk_sent(&talk_, lk_buffer_size(&talk_.out));
  const std::string pong = frame(LATCHKEY_PONG, 1);
  std::uint8_t* to = lk_buffer_reserve(&talk_.in, pong.size());
  std::copy(pong.begin(), pong.end(), to);
  talk_.in.end += pong.size();
  EXPECT_THAT(failures(), ElementsAre(0));
  EXPECT_FALSE(lk_expired(&talk_, 150));
  EXPECT_TRUE(lk_expired(&talk_, 200));
}

TEST_F(ClientDeadline, KeysThatAreSentAreNotInTheBufferAnyMore) {
  const std::string secret = "sk_live_42";
  const latchkey_key key{secret.data(), secret.size()};
  const lk_request request = {LATCHKEY_VERIFY, LATCHKEY_QUESTION_INIT, &key, 1, 0};
  for (int i = 0; i < 200; ++i) ASSERT_EQ(lk_start(&talk_, &request, 1000, nullptr), 0);
  const auto held = [this] {
    return std::string(reinterpret_cast<const char*>(talk_.out.data), talk_.out.room);
  };
  EXPECT_THAT(held(), HasSubstr(secret));
  while (lk_buffer_size(&talk_.out) != 0) {
    lk_sent(&talk_, std::min<std::size_t>(lk_buffer_size(&talk_.out), 1000));
  }
  EXPECT_THAT(held(), testing::Not(HasSubstr("sk_live")));
  for (int i = 0; i < 3; ++i) ASSERT_EQ(lk_start(&talk_, &request, 1000, nullptr), 0);
  lk_fail(&talk_, LATCHKEY_FAILED_TIMEOUT, 1000);  // includes requests that were never sent
  EXPECT_THAT(held(), testing::Not(HasSubstr("sk_live")));
}

// ---- a process that forks

TEST(ClientFork, LeavesTheConnectionToTheParent) {
  std::string made = testing::TempDir() + "latchkey-XXXXXX";
  ASSERT_NE(::mkdtemp(made.data()), nullptr);
  const std::string path = made + "/s";
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  ASSERT_LT(path.size(), sizeof address.sun_path);
  path.copy(address.sun_path, path.size());
  const int listener = ::socket(AF_UNIX, SOCK_STREAM, 0);
  ASSERT_EQ(::bind(listener, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
  ASSERT_EQ(::listen(listener, 4), 0);

  latchkey_client* client = latchkey_open(path.c_str());
  ids_from = client->talk.last_id;
  latchkey_set_timeout(client, 60000);
  ASSERT_EQ(latchkey_start_ping(client, nullptr), 0);
  latchkey_step(client);
  const int parents = ::accept(listener, nullptr, nullptr);
  ASSERT_GE(parents, 0);

  const pid_t child = ::fork();
  if (child == 0) {
    latchkey_reply reply;
    const bool lost = latchkey_take(client, &reply) == 1 && reply.failure == LATCHKEY_FAILED_CLOSED;
    const bool asks = latchkey_start_ping(client, nullptr) == 0;
    for (int i = 0; i < 1000 && latchkey_fd(client) < 0; ++i) {
      ::poll(nullptr, 0, latchkey_due_ms(client));
      latchkey_step(client);
    }
    ::_exit(lost && asks && latchkey_fd(client) >= 0 ? 0 : 1);
  }
  int status = -1;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);

  // The child's actions leave the parent's connection alone: one ping is there, and its reply
  // arrives.
  char asked[64];
  EXPECT_EQ(::recv(parents, asked, sizeof asked, MSG_DONTWAIT), 16);
  const std::string pong = frame(LATCHKEY_PONG, 1);
  EXPECT_EQ(::send(parents, pong.data(), pong.size(), MSG_NOSIGNAL), 16);
  latchkey_step(client);
  latchkey_reply reply;
  EXPECT_EQ(latchkey_take(client, &reply), 1);
  EXPECT_EQ(reply.failure, 0);
  latchkey_close(client);
  ::close(parents);
  ::close(listener);
  ::unlink(path.c_str());
  ::rmdir(made.c_str());
}

}  // namespace
}  // namespace latchkey
