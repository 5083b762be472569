// A connection of the binary protocol over a socket pair: turns, deadlines, replies that are not
// taken, refusal, drain. The host is a fake that serves turns when the test says so.
#include "daemon/unix/connection.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <boost/asio/io_context.hpp>
#include <cerrno>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/wire_names.h"
#include "tests/reference/client_codec.h"
#include "tests/unit/support/helpers.h"
#include "tests/unit/support/verifier_fixture.h"

namespace latchkey {
namespace {

using test::kMs;
using test::row;
using testing::ElementsAre;
using testing::IsEmpty;
using testing::Pair;

constexpr std::int64_t kS = 1000 * kMs;
constexpr std::int64_t kIdle = 600 * kS, kStall = 5 * kS;
constexpr uid_t kUid = 1001;
const CallerId kId{{Share::Kind::kRule, kUid}, kUid};

class FakeHost : public ConnectionHost {
 public:
  FakeHost() {
    limits_.stall_timeout = std::chrono::nanoseconds(kStall);
    admission_.set_limits(limits_);
  }

  const WorkerContext& context() override { return context_; }
  const LimitOptions& limits() override { return limits_; }
  Admission& admission() override { return admission_; }
  void ready(Connection& connection, bool again) override {
    EXPECT_EQ(waiting_, nullptr) << "one connection waits for one turn at a time";
    waiting_ = connection.shared_from_this();
    asked_.push_back(again);
  }
  void asked_in_vain(const CallerId& id, std::uint64_t keys) override {
    EXPECT_EQ(id, kId);
    in_vain_ += keys;
  }
  void sync(SourceMask sources, std::chrono::milliseconds timeout,
            std::function<void(bool)> done) override {
    syncs_.emplace_back(sources, timeout);
    done_ = std::move(done);
  }
  void closed(Connection&) override { ++closed_; }

  // Gives the connection its turn if it waits for one.
  bool serve() {
    const auto next = std::exchange(waiting_, nullptr);
    if (next != nullptr) next->turn();
    return next != nullptr;
  }

  WorkerContext context_;
  LimitOptions limits_;
  Admission admission_{limits_};
  std::shared_ptr<Connection> waiting_;
  std::vector<bool> asked_;  // the `again` of each call of ready()
  std::uint64_t in_vain_ = 0;
  std::vector<std::pair<SourceMask, std::chrono::milliseconds>> syncs_;
  std::function<void(bool)> done_;
  int closed_ = 0;
};

struct Reply {
  std::uint8_t type;
  std::uint64_t id;
  std::string body;

  friend bool operator==(const Reply&, const Reply&) = default;
};

// The other end.
class Caller {
 public:
  explicit Caller(int fd) : fd_(fd) {}
  ~Caller() { hang_up(); }
  Caller(const Caller&) = delete;
  Caller& operator=(const Caller&) = delete;

  // False: the connection is closed.
  bool send(std::string_view bytes) {
    return ::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL | MSG_DONTWAIT) ==
           static_cast<ssize_t>(bytes.size());
  }
  // Takes at most `limit` bytes of those that are there.
  std::size_t take(std::size_t limit) {
    std::string bytes(limit, '\0');
    const ssize_t count = recv(fd_, bytes.data(), bytes.size(), MSG_DONTWAIT);
    ended_ = ended_ || count == 0 || (count < 0 && errno != EAGAIN);
    if (count <= 0) return 0;
    received_.append(bytes, 0, static_cast<std::size_t>(count));
    return static_cast<std::size_t>(count);
  }
  // The whole replies that have come since the last call.
  std::vector<Reply> replies() {
    while (take(65536) > 0) {
    }
    std::vector<Reply> list;
    while (received_.size() >= LATCHKEY_HEADER_BYTES) {
      const auto* head = reinterpret_cast<const std::uint8_t*>(received_.data());
      const std::size_t length = load_le<std::uint32_t>(head + 4);
      if (length < LATCHKEY_HEADER_BYTES) throw std::runtime_error("not a frame");
      if (received_.size() < length) break;
      list.push_back({head[1], load_le<std::uint64_t>(head + 8),
                      received_.substr(LATCHKEY_HEADER_BYTES, length - LATCHKEY_HEADER_BYTES)});
      received_.erase(0, length);
    }
    return list;
  }
  // After replies(): the daemon has ended its half, and no part of a reply is left.
  [[nodiscard]] bool at_end() const { return ended_ && received_.empty(); }
  void end_requests() const { shutdown(fd_, SHUT_WR); }
  void hang_up() {
    if (fd_ >= 0) ::close(std::exchange(fd_, -1));
  }

 private:
  int fd_;
  std::string received_;
  bool ended_ = false;
};

std::string text(const OutBuffer& out) { return std::string(as_text(out.bytes())); }
std::string ping(std::uint64_t id) {
  OutBuffer out;
  encode_ping(out, id);
  return text(out);
}
std::string verify(std::uint64_t id, std::string_view key) {
  OutBuffer out;
  encode_verify(out, id, {}, {&key, 1});
  return text(out);
}
std::string status(std::uint64_t id) {
  OutBuffer out;
  encode_status(out, id);
  return text(out);
}
std::string sync_request(std::uint64_t id, std::uint32_t timeout_ms) {
  OutBuffer out;
  encode_sync(out, id, timeout_ms);
  return text(out);
}

std::vector<std::uint64_t> ids(const std::vector<Reply>& replies) {
  std::vector<std::uint64_t> list;
  for (const Reply& reply : replies) list.push_back(reply.id);
  return list;
}
std::optional<latchkey_error> error_in(const Reply& reply) {
  latchkey_error code{};
  std::string_view sentence;
  if (reply.type != LATCHKEY_ERROR || decode_error(test::as_bytes(reply.body), code, sentence)) {
    return std::nullopt;
  }
  EXPECT_EQ(sentence, error_sentence(code));
  return code;
}
latchkey_verdict verdict_in(const Reply& reply) {
  std::vector<DecodedAnswer> answers;
  EXPECT_FALSE(decode_verified(test::as_bytes(reply.body), answers));
  return answers.size() == 1 ? answers[0].verdict : LATCHKEY_VERDICTS;
}

class ConnectionTest : public test::VerifierTest {
 protected:
  ConnectionTest() {
    in_a_.upsert(row("1", "good"));
    WorkerContext& context = host_.context_;
    context.verifier = &verifier_;
    context.reader = &reader_;
    context.stats = &stats_;
    context.clock = [this] { return now_; };
    context.status_json = [this](const Rights&) {
      return std::make_shared<const std::string>(status_);
    };
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) {
      throw std::runtime_error("socketpair failed");
    }
    caller_ = std::make_unique<Caller>(ends[0]);
    Peer peer;
    peer.uid = kUid;
    connection_ = std::make_shared<UnixConnection>(
        Connection::Socket(io_, boost::asio::local::stream_protocol(), ends[1]), host_, scratch_,
        peer, kId, rights_);
  }
  ~ConnectionTest() override {
    connection_->close();
    host_.waiting_.reset();
    io_.restart();
    io_.poll();
  }
  ConnectionTest(const ConnectionTest&) = delete;
  ConnectionTest& operator=(const ConnectionTest&) = delete;

  // Lets the connection notice all that has happened on its socket.
  void notice() {
    io_.restart();
    io_.poll();
  }
  // The same, with all turns that it asks for.
  void settle() {
    do {
      notice();
    } while (host_.serve());
  }
  void start() {
    connection_->start();
    settle();
  }
  std::vector<Reply> ask(std::string_view bytes) {
    EXPECT_TRUE(caller_->send(bytes));
    settle();
    return caller_->replies();
  }
  // A reply that no socket's buffer takes at once; the socket's buffer is full afterwards.
  void fill(std::uint64_t id) {
    status_.assign(std::size_t{700} * 1024, 's');
    EXPECT_TRUE(caller_->send(status(id)));
    settle();
  }
  [[nodiscard]] bool is_closed() const { return host_.closed_ > 0; }

  const Rights rights_{.sources = 0b111, .all_sources = true};
  std::string status_ = "{}";
  boost::asio::io_context io_;
  Quiescence::Reader reader_{quiescence_};
  WorkerStats stats_;
  BatchScratch scratch_;
  FakeHost host_;
  std::unique_ptr<Caller> caller_;
  std::shared_ptr<UnixConnection> connection_;
};

// ---- requests and turns

TEST_F(ConnectionTest, AnswersRequestsInTheirOrder) {
  start();
  const auto replies = ask(ping(7) + verify(8, "good") + status(9) + verify(10, "bad") + ping(11));
  EXPECT_THAT(ids(replies), ElementsAre(7, 8, 9, 10, 11));
  ASSERT_EQ(replies.size(), 5U);
  EXPECT_EQ(replies[0].type, LATCHKEY_PONG);
  EXPECT_EQ(verdict_in(replies[1]), LATCHKEY_VALID);
  EXPECT_EQ(replies[2].body, "{}");
  EXPECT_EQ(verdict_in(replies[3]), LATCHKEY_UNKNOWN);
  EXPECT_EQ(stats_.requests.get(), 5U);
  EXPECT_FALSE(is_closed());
  EXPECT_THAT(ids(ask(ping(12))), ElementsAre(12));
}

TEST_F(ConnectionTest, ReadsAndAnswersInItsTurnOnly) {
  start();
  EXPECT_TRUE(caller_->send(ping(1)));
  notice();
  EXPECT_THAT(host_.asked_, ElementsAre(false));
  notice();
  EXPECT_EQ(stats_.requests.get(), 0U);
  EXPECT_THAT(caller_->replies(), IsEmpty());
  connection_->check_deadline(boot_ns() + 1000 * kIdle, kIdle);
  EXPECT_FALSE(is_closed()) << "the daemon makes it wait";
  EXPECT_TRUE(host_.serve());
  EXPECT_THAT(ids(caller_->replies()), ElementsAre(1));
  notice();
  EXPECT_THAT(host_.asked_, ElementsAre(false)) << "nothing is left";
}

TEST_F(ConnectionTest, AnswersAsMuchInATurnAsItsHostAllows) {
  start();
  host_.context_.turn_work = 1;
  EXPECT_TRUE(caller_->send(ping(1) + ping(2) + ping(3)));
  for (std::uint64_t id = 1; id <= 3; ++id) {
    notice();
    EXPECT_TRUE(host_.serve());
    EXPECT_THAT(ids(caller_->replies()), ElementsAre(id));
  }
  settle();
  EXPECT_THAT(host_.asked_, ElementsAre(false, true, true, true))
      << "the host learns that it had a turn just now";
}

TEST_F(ConnectionTest, AnswersAnyPiecesAsTheWhole) {
  test::Random random;
  start();
  for (int round = 0; round < 50; ++round) {
    std::string bytes;
    std::vector<std::uint64_t> expected;
    const std::size_t count = 1 + random.below(30);
    for (std::uint64_t id = 0; id < count; ++id) {
      const std::string requests[] = {ping(id), verify(id, "good"), status(id),
                                      verify(id, std::string(1 + random.below(4096), 'k'))};
      bytes += requests[random.below(4)];
      expected.push_back(id);
    }
    host_.context_.turn_work = 1 + random.below(20);
    std::vector<Reply> replies;
    for (std::size_t at = 0; at < bytes.size();) {
      const std::size_t piece = std::min(bytes.size() - at, 1 + random.below(9000));
      ASSERT_TRUE(caller_->send(std::string_view(bytes).substr(at, piece)));
      at += piece;
      if (random.below(3) == 0) continue;
      notice();
      if (random.below(2) == 0) host_.serve();
      for (Reply& reply : caller_->replies()) replies.push_back(std::move(reply));
    }
    settle();
    for (Reply& reply : caller_->replies()) replies.push_back(std::move(reply));
    ASSERT_EQ(ids(replies), expected);
  }
  EXPECT_FALSE(is_closed());
}

TEST_F(ConnectionTest, CountsKeysThatItsCallerWasToldToBeUnknown) {
  start();
  ask(verify(1, "bad") + verify(2, "worse") + verify(3, "good"));
  EXPECT_EQ(host_.in_vain_, 2U);
  ask(ping(4));
  EXPECT_EQ(host_.in_vain_, 2U);
}

TEST_F(ConnectionTest, MeasuresEachAnswerOnce) {
  start();
  const auto count = [&] {
    std::uint64_t sum = 0;
    for (const Counter& bucket : stats_.answered_in.buckets) sum += bucket.get();
    return sum;
  };
  EXPECT_EQ(count(), 0U);
  ask(ping(1) + ping(2));
  EXPECT_EQ(count(), 1U) << "from the arrival until all of it is answered";
  ask(ping(3));
  EXPECT_EQ(count(), 2U);
}

TEST_F(ConnectionTest, RefusesBytesThatAreNoRequestAndEnds) {
  start();
  const auto replies = ask(ping(1) + std::string("GET / HTTP/1.1\r\n\r\n"));
  ASSERT_EQ(replies.size(), 2U);
  EXPECT_EQ(replies[0].id, 1U);
  EXPECT_EQ(error_in(replies[1]), LATCHKEY_BAD_VERSION);
  EXPECT_TRUE(caller_->at_end());
  EXPECT_EQ(stats_.protocol_errors.get(), 1U);
}

// ---- the caller ends it

TEST_F(ConnectionTest, ClosesWhenItsCallerHangsUp) {
  start();
  caller_->hang_up();
  settle();
  EXPECT_EQ(host_.closed_, 1);
  connection_->close();
  EXPECT_EQ(host_.closed_, 1) << "once";
}

TEST_F(ConnectionTest, AnswersAllRequestsOfACallerThatEndsItsHalf) {
  start();
  EXPECT_TRUE(caller_->send(ping(1) + ping(2)));
  caller_->end_requests();
  settle();
  EXPECT_THAT(ids(caller_->replies()), ElementsAre(1, 2));
  EXPECT_TRUE(caller_->at_end());
  EXPECT_EQ(host_.closed_, 1);
}

// ---- deadlines

TEST_F(ConnectionTest, ClosesIdleConnections) {
  const std::int64_t before_ns = boot_ns();
  start();
  const std::int64_t after_ns = boot_ns();
  connection_->check_deadline(before_ns + kIdle - 1, kIdle);
  EXPECT_FALSE(is_closed());
  connection_->check_deadline(after_ns + kIdle, kIdle);
  EXPECT_TRUE(is_closed());
  EXPECT_EQ(stats_.closed_idle.get(), 1U);
  EXPECT_EQ(stats_.closed_stalled.get(), 0U);
  caller_->replies();
  EXPECT_TRUE(caller_->at_end());
}

TEST_F(ConnectionTest, CountsIdlenessFromTheLastReply) {
  start();
  const std::int64_t before_ns = boot_ns();
  ask(ping(1));
  connection_->check_deadline(before_ns + kIdle - 1, kIdle);
  EXPECT_FALSE(is_closed());
  connection_->check_deadline(boot_ns() + kIdle, kIdle);
  EXPECT_TRUE(is_closed());
}

TEST_F(ConnectionTest, GivesAFrameItsTimeFromItsFirstByteOn) {
  start();
  const std::string request = ping(1);
  const std::int64_t before_ns = boot_ns();
  EXPECT_THAT(ask(request.substr(0, 5)), IsEmpty());
  const std::int64_t begun_ns = boot_ns();
  EXPECT_THAT(ask(request.substr(5, 1)), IsEmpty()) << "another byte buys no time";
  connection_->check_deadline(before_ns + kStall - 1, 1);
  EXPECT_FALSE(is_closed()) << "a frame under way is not idle";
  connection_->check_deadline(begun_ns + kStall, kIdle);
  EXPECT_TRUE(is_closed());
  EXPECT_EQ(stats_.closed_stalled.get(), 1U);
  EXPECT_EQ(stats_.closed_idle.get(), 0U);
}

TEST_F(ConnectionTest, ForgetsTheDeadlineOfAFrameThatIsComplete) {
  start();
  const std::string request = ping(1);
  ask(request.substr(0, 5));
  EXPECT_THAT(ids(ask(request.substr(5))), ElementsAre(1));
  connection_->check_deadline(boot_ns() + 2 * kStall, kIdle);
  EXPECT_FALSE(is_closed());
}

TEST_F(ConnectionTest, GivesTheNextFrameATimeOfItsOwn) {
  start();
  const std::string first = ping(1), second = ping(2);
  ask(first.substr(0, 5));
  const std::int64_t before_ns = boot_ns();
  EXPECT_THAT(ids(ask(first.substr(5) + second.substr(0, 3))), ElementsAre(1));
  connection_->check_deadline(before_ns + kStall - 1, kIdle);
  EXPECT_FALSE(is_closed());
  connection_->check_deadline(boot_ns() + kStall, kIdle);
  EXPECT_TRUE(is_closed());
}

// ---- replies that are not taken

TEST_F(ConnectionTest, SendsALargeReplyAsItsCallerTakesIt) {
  start();
  fill(1);
  EXPECT_GE(host_.admission_.waiting_bytes(), status_.size());
  EXPECT_FALSE(host_.admission_.callers().empty());
  EXPECT_TRUE(caller_->send(ping(2)));
  const std::size_t asked = host_.asked_.size();
  settle();
  EXPECT_EQ(host_.asked_.size(), asked) << "it reads no more until the reply is taken";
  EXPECT_EQ(stats_.requests.get(), 1U);
  std::vector<Reply> replies;
  for (int i = 0; i < 100 && replies.size() < 2; ++i) {
    for (Reply& reply : caller_->replies()) replies.push_back(std::move(reply));
    settle();
  }
  EXPECT_THAT(ids(replies), ElementsAre(1, 2));
  EXPECT_EQ(replies.at(0).body, status_);
  EXPECT_EQ(host_.admission_.waiting_bytes(), 0U);
  EXPECT_FALSE(is_closed());
}

TEST_F(ConnectionTest, EndsAtTheDeadlineOfRepliesThatAreNotTaken) {
  start();
  const std::int64_t before_ns = boot_ns();
  fill(1);
  const std::int64_t begun_ns = boot_ns();
  EXPECT_GT(caller_->take(200'000), 0U) << "to take a little buys no time";
  settle();
  connection_->check_deadline(before_ns + kStall - 1, 1);
  EXPECT_FALSE(is_closed());
  EXPECT_GT(host_.admission_.waiting_bytes(), 0U);
  connection_->check_deadline(begun_ns + kStall, kIdle);
  EXPECT_TRUE(is_closed());
  EXPECT_EQ(stats_.closed_stalled.get(), 1U);
  EXPECT_EQ(host_.admission_.waiting_bytes(), 0U) << "Admission has its bytes back";
}

TEST_F(ConnectionTest, GivesTheNextReplyATimeOfItsOwn) {
  start();
  fill(1);
  while (caller_->take(65536) > 0) settle();
  EXPECT_EQ(host_.admission_.waiting_bytes(), 0U);
  const std::int64_t before_ns = boot_ns();
  fill(2);
  connection_->check_deadline(before_ns + kStall - 1, kIdle);
  EXPECT_FALSE(is_closed());
}

TEST_F(ConnectionTest, ClosesACallerThatMayNotLetSoMuchWait) {
  host_.limits_.reply_memory = 1000;
  host_.admission_.set_limits(host_.limits_);
  start();
  fill(1);
  EXPECT_TRUE(is_closed());
  EXPECT_EQ(stats_.closed_hoarding.get(), 1U);
  EXPECT_EQ(host_.admission_.waiting_bytes(), 0U);
}

TEST_F(ConnectionTest, GivesBackItsBytesWhenItsCallerHangsUp) {
  start();
  fill(1);
  EXPECT_GT(host_.admission_.waiting_bytes(), 0U);
  caller_->hang_up();
  settle();
  EXPECT_TRUE(is_closed());
  EXPECT_EQ(host_.admission_.waiting_bytes(), 0U);
}

// ---- refusal

TEST_F(ConnectionTest, SaysWhyItRefusesAndCloses) {
  connection_->refuse(LATCHKEY_NOT_ALLOWED);
  const auto replies = caller_->replies();
  ASSERT_EQ(replies.size(), 1U);
  EXPECT_EQ(error_in(replies[0]), LATCHKEY_NOT_ALLOWED);
  EXPECT_EQ(replies[0].id, 0U);
  EXPECT_TRUE(caller_->at_end());
  EXPECT_FALSE(is_closed()) << "an unread request would discard the error";
  caller_->hang_up();
  settle();
  EXPECT_TRUE(is_closed());
}

TEST_F(ConnectionTest, AnswersNoRequestAfterARefusal) {
  EXPECT_TRUE(caller_->send(verify(1, "good")));
  connection_->refuse(LATCHKEY_NOT_ALLOWED);
  settle();
  EXPECT_TRUE(caller_->send(ping(2)));
  settle();
  EXPECT_EQ(caller_->replies().size(), 1U) << "the refusal";
  EXPECT_EQ(stats_.requests.get(), 0U);
  EXPECT_FALSE(is_closed());
}

TEST_F(ConnectionTest, LingersForASecondAtMost) {
  const std::int64_t before_ns = boot_ns();
  connection_->refuse(LATCHKEY_OVERLOADED);
  const std::int64_t after_ns = boot_ns();
  EXPECT_TRUE(caller_->send(ping(1)));
  settle();
  connection_->check_deadline(before_ns + kS - 1, kIdle);
  EXPECT_FALSE(is_closed());
  connection_->check_deadline(after_ns + kS, kIdle);
  EXPECT_TRUE(is_closed()) << "requests buy no time";
  EXPECT_EQ(stats_.closed_stalled.get(), 0U) << "it has had its refusal";
}

// ---- drain

TEST_F(ConnectionTest, ClosesAnIdleConnectionWhenDrained) {
  start();
  connection_->drain();
  settle();
  EXPECT_TRUE(is_closed());
}

TEST_F(ConnectionTest, AnswersRequestsThatHaveArrivedThenCloses) {
  start();
  EXPECT_TRUE(caller_->send(ping(1) + verify(2, "good")));
  connection_->drain();
  settle();
  EXPECT_THAT(ids(caller_->replies()), ElementsAre(1, 2));
  EXPECT_TRUE(caller_->at_end());
  EXPECT_TRUE(is_closed());
}

TEST_F(ConnectionTest, AnswersRequestsThatWaitForATurnThenCloses) {
  start();
  host_.context_.turn_work = 1;
  EXPECT_TRUE(caller_->send(ping(1) + ping(2) + ping(3)));
  notice();
  EXPECT_TRUE(host_.serve());
  connection_->drain();
  settle();
  EXPECT_THAT(ids(caller_->replies()), ElementsAre(1, 2, 3));
  EXPECT_TRUE(is_closed());
}

TEST_F(ConnectionTest, MakesWayForOthersWhileItDrains) {
  start();
  EXPECT_TRUE(caller_->send(ping(1)));
  connection_->drain();
  notice();
  host_.asked_.clear();
  for (std::uint64_t id = 2; id < 10; ++id) {
    EXPECT_TRUE(caller_->send(ping(id)));
    EXPECT_TRUE(host_.serve());
    EXPECT_THAT(caller_->replies(), testing::SizeIs(testing::Ge(1U)));
    if (is_closed()) break;
  }
  EXPECT_THAT(host_.asked_, testing::Each(true)) << "a caller that goes on asking is served last";
}

TEST_F(ConnectionTest, GivesUpHalfAFrameWhenDrained) {
  start();
  ask(ping(1).substr(0, 5));
  connection_->drain();
  settle();
  EXPECT_TRUE(is_closed());
}

TEST_F(ConnectionTest, FinishesALargeReplyWhenDrained) {
  start();
  fill(1);
  connection_->drain();
  settle();
  EXPECT_FALSE(is_closed());
  std::vector<Reply> replies;
  for (int i = 0; i < 100 && !is_closed(); ++i) {
    for (Reply& reply : caller_->replies()) replies.push_back(std::move(reply));
    settle();
  }
  for (Reply& reply : caller_->replies()) replies.push_back(std::move(reply));
  EXPECT_THAT(ids(replies), ElementsAre(1));
  EXPECT_EQ(replies.at(0).body, status_);
  EXPECT_TRUE(is_closed());
}

// ---- sync

TEST_F(ConnectionTest, AnswersASyncWhenItIsInForce) {
  start();
  EXPECT_THAT(ids(ask(ping(1) + sync_request(2, 1500) + ping(3))), ElementsAre(1));
  EXPECT_THAT(host_.syncs_, ElementsAre(Pair(0b111U, std::chrono::milliseconds(1500))));
  connection_->check_deadline(boot_ns() + 2 * kStall, 1);
  EXPECT_FALSE(is_closed()) << "its own timeout counts";
  host_.done_(true);
  settle();
  const auto replies = caller_->replies();
  EXPECT_THAT(ids(replies), ElementsAre(2, 3)) << "the requests behind it wait for it";
  EXPECT_EQ(replies.at(0).type, LATCHKEY_SYNCED);
}

TEST_F(ConnectionTest, SaysThatASyncTimedOut) {
  start();
  EXPECT_THAT(ask(sync_request(2, 1500)), IsEmpty());
  host_.done_(false);
  settle();
  const auto replies = caller_->replies();
  ASSERT_EQ(replies.size(), 1U);
  EXPECT_EQ(replies[0].id, 2U);
  EXPECT_EQ(error_in(replies[0]), LATCHKEY_TIMED_OUT);
  EXPECT_THAT(ids(ask(ping(3))), ElementsAre(3));
}

TEST_F(ConnectionTest, IgnoresASyncThatEndsAfterItsConnection) {
  start();
  ask(sync_request(2, 1500));
  connection_->close();
  host_.done_(true);
  settle();
  EXPECT_THAT(caller_->replies(), IsEmpty());
  EXPECT_EQ(host_.closed_, 1);
}

TEST_F(ConnectionTest, EndsASyncWhoseHostNeverAnswers) {
  start();
  ask(sync_request(2, 1500));
  connection_->check_deadline(boot_ns() + 2 * LATCHKEY_SYNC_TIMEOUT_MS_MAX * kMs, kIdle);
  EXPECT_TRUE(is_closed());
}

// ---- rules that change

TEST_F(ConnectionTest, FollowsTheRules) {
  const std::vector<std::string> sources = {"a", "b", "c"};
  AllowOptions rule;
  rule.uid = kUid;
  const auto apply = [&] { connection_->apply(CallerRules({&rule, 1}, sources, 1)); };
  start();
  EXPECT_EQ(verdict_in(ask(verify(1, "good")).at(0)), LATCHKEY_VALID);
  rule.sources = {"b"};
  apply();
  EXPECT_EQ(verdict_in(ask(verify(2, "good")).at(0)), LATCHKEY_UNKNOWN);
  rule.operations = {"status"};
  apply();
  EXPECT_EQ(error_in(ask(verify(3, "good")).at(0)), LATCHKEY_OPERATION_NOT_ALLOWED);
  EXPECT_FALSE(is_closed());
  rule.uid = kUid + 1;
  apply();
  EXPECT_TRUE(is_closed());
}

TEST_F(ConnectionTest, IsSilentOnceClosed) {
  start();
  EXPECT_TRUE(caller_->send(ping(1)));
  notice();
  connection_->close();
  settle();
  EXPECT_THAT(caller_->replies(), IsEmpty());
  connection_->check_deadline(boot_ns() + 1000 * kIdle, kIdle);
  EXPECT_EQ(host_.closed_, 1);
  EXPECT_EQ(stats_.closed_idle.get() + stats_.closed_stalled.get(), 0U);
}

}  // namespace
}  // namespace latchkey
