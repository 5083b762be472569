// The steps between connecting and the first barrier, replayed, and failing at each.
#include "loader/handshake.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace latchkey {
namespace {

using Step = Handshake::Step;

constexpr std::int64_t kMs = 1'000'000;
constexpr std::int64_t kS = 1000 * kMs;
constexpr Handshake::Times kTimes{.connect_ns = 5 * kS, .step_ns = 10 * kS, .meeting_ns = 2 * kS};

const char* name_of(Step step) {
  switch (step) {
    case Step::kWait: return "wait";
    case Step::kIdentify: return "identify";
    case Step::kListen: return "listen";
    case Step::kAskProgress: return "ask";
    case Step::kMeet: return "meet";
    case Step::kPrepare: return "prepare";
    case Step::kReady: return "ready";
  }
  return "";
}

class HandshakeTest : public testing::Test {
 public:
  // All steps that come now, as words.
  std::string steps() {
    std::string words;
    for (;;) {
      const Step step = handshake_.next(now_, read_idle_);
      if (step == Step::kWait) return words;
      words += (words.empty() ? "" : " ") + std::string(name_of(step));
      if (words.size() > 100) return words + " without end";
    }
  }
  void after(std::int64_t ns) { now_ += ns; }
  // Has it failed for want of an answer?
  [[nodiscard]] bool late() const {
    return now_ > handshake_.read_deadline_ns() || now_ > handshake_.listen_deadline_ns();
  }
  void connect_both() {
    handshake_.read_connected();
    handshake_.listen_connected();
    EXPECT_EQ(steps(), "identify listen");
  }

  std::int64_t now_ = 1000 * kS;
  bool read_idle_ = true;
  Handshake handshake_{kTimes, now_};
};

TEST_F(HandshakeTest, GoesFromConnectingToReady) {
  EXPECT_EQ(steps(), "");
  handshake_.read_connected();
  EXPECT_EQ(steps(), "identify");
  handshake_.listen_connected();
  EXPECT_EQ(steps(), "listen");
  handshake_.inspected();
  EXPECT_EQ(steps(), "") << "LISTEN is under way";
  handshake_.listening();
  EXPECT_EQ(steps(), "meet");
  EXPECT_EQ(steps(), "") << "once";
  handshake_.met();
  EXPECT_EQ(steps(), "prepare");
  EXPECT_FALSE(handshake_.over());
  handshake_.prepared();
  EXPECT_EQ(steps(), "ready");
  EXPECT_TRUE(handshake_.over());
  EXPECT_EQ(steps(), "");
  EXPECT_EQ(handshake_.wake_ns(), Handshake::kNever);
  after(3600 * kS);
  EXPECT_FALSE(late()) << "from now on the policy keeps the deadlines";
}

TEST_F(HandshakeTest, MeetsOnlyAfterBothAreThrough) {
  connect_both();
  handshake_.listening();
  EXPECT_EQ(steps(), "") << "the server is not known yet";
  handshake_.inspected();
  EXPECT_EQ(steps(), "meet");
}

TEST_F(HandshakeTest, SendsNothingOverABusyConnection) {
  connect_both();
  read_idle_ = false;
  handshake_.inspected();
  handshake_.listening();
  EXPECT_EQ(steps(), "");
  read_idle_ = true;
  EXPECT_EQ(steps(), "meet");
  read_idle_ = false;
  handshake_.met();
  EXPECT_EQ(steps(), "") << "its NOTIFY is not through";
  read_idle_ = true;
  EXPECT_EQ(steps(), "prepare");
}

// At each step: no answer comes. The deadline is that of the step, and it fails just after it.
TEST_F(HandshakeTest, FailsWhereAnAnswerDoesNotCome) {
  struct Case {
    const char* where;
    std::int64_t deadline_ns;
    void (*until)(HandshakeTest&);
  };
  const auto connected = [](HandshakeTest& t) { t.connect_both(); };
  const auto inspected = [](HandshakeTest& t) {
    t.connect_both();
    t.handshake_.inspected();
    EXPECT_EQ(t.steps(), "");
  };
  const auto meeting = [](HandshakeTest& t) {
    t.connect_both();
    t.handshake_.inspected();
    t.handshake_.listening();
    EXPECT_EQ(t.steps(), "meet");
  };
  const auto preparing = [](HandshakeTest& t) {
    t.connect_both();
    t.handshake_.inspected();
    t.handshake_.listening();
    EXPECT_EQ(t.steps(), "meet");
    t.handshake_.met();
    EXPECT_EQ(t.steps(), "prepare");
  };
  const std::vector<Case> cases = {
      {"connecting", 5 * kS, [](HandshakeTest&) {}},
      {"asking who it is", 10 * kS, connected},
      {"listening", 10 * kS, inspected},
      {"meeting", 2 * kS, meeting},
      {"preparing", 10 * kS, preparing},
  };
  for (const Case& c : cases) {
    now_ = 1000 * kS;
    handshake_ = Handshake(kTimes, now_);
    c.until(*this);
    EXPECT_LE(handshake_.wake_ns(), now_ + c.deadline_ns) << c.where;
    after(c.deadline_ns);
    EXPECT_FALSE(late()) << c.where;
    after(1);
    EXPECT_TRUE(late()) << c.where;
  }
}

// ---- LISTEN behind a long queue

TEST_F(HandshakeTest, AsksHowFarAListenIsOnceASecond) {
  connect_both();
  handshake_.inspected();
  after(999 * kMs);
  EXPECT_EQ(steps(), "");
  EXPECT_EQ(handshake_.wake_ns(), now_ + kMs);
  after(kMs);
  EXPECT_EQ(steps(), "ask");
  EXPECT_EQ(steps(), "");
  read_idle_ = false;
  after(2 * kS);
  EXPECT_EQ(steps(), "") << "no answer yet";
  read_idle_ = true;
  EXPECT_EQ(steps(), "ask");
  handshake_.listening();
  EXPECT_EQ(steps(), "meet") << "and no more questions";
}

TEST_F(HandshakeTest, GivesAListenTheTimeThatTheQueueTakes) {
  connect_both();
  handshake_.inspected();
  after(9 * kS);
  EXPECT_TRUE(handshake_.progress(true, 0.5, now_));
  after(10 * kS);
  EXPECT_FALSE(late());
  after(1);
  EXPECT_TRUE(late()) << "unless it is found at work again";
  EXPECT_TRUE(handshake_.progress(true, 0.5, now_));
  EXPECT_FALSE(late());
  after(1800 * kS);  // half of a whole queue's time
  EXPECT_FALSE(handshake_.progress(true, 0.5, now_));
  EXPECT_TRUE(late());
}

TEST_F(HandshakeTest, GivesNoTimeToAListenThatDoesNotWork) {
  connect_both();
  handshake_.inspected();
  after(5 * kS);
  EXPECT_FALSE(handshake_.progress(false, 1.0, now_));
  EXPECT_FALSE(handshake_.progress(true, 0.0001, now_)) << "the queue is not what it waits for";
  EXPECT_EQ(handshake_.listen_deadline_ns(), now_ + 5 * kS);
  handshake_.listening();
  EXPECT_FALSE(handshake_.progress(true, 1.0, now_)) << "an answer that comes late";
  EXPECT_EQ(handshake_.listen_deadline_ns(), Handshake::kNever);
}

// ---- a full queue

TEST_F(HandshakeTest, MeetsAgainAfterAFullQueueHasRefused) {
  connect_both();
  handshake_.inspected();
  handshake_.listening();
  for (int i = 0; i < 100; ++i) {
    ASSERT_EQ(steps(), "meet");
    after(kS);
    handshake_.meeting_refused(now_);
    EXPECT_EQ(steps(), "");
    EXPECT_FALSE(late()) << "the connections are kept for as long as that takes";
    EXPECT_EQ(handshake_.wake_ns(), now_ + kS);
    after(kS);
  }
  EXPECT_EQ(steps(), "meet");
  handshake_.met();
  EXPECT_EQ(steps(), "prepare");
}

}  // namespace
}  // namespace latchkey
