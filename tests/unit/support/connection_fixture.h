// A UnixConnection over a socket pair, with a host that a test controls.
#pragma once

#include "daemon/unix/connection.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

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
#include "base/descriptor.h"
#include "base/wire_names.h"
#include "tests/reference/client_codec.h"
#include "tests/unit/support/frames.h"
#include "tests/unit/support/helpers.h"
#include "tests/unit/support/verifier_fixture.h"

namespace latchkey::test {

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
  void ready(Connection& connection) override {
    EXPECT_EQ(waiting_, nullptr) << "one connection waits for one turn at a time";
    waiting_ = connection.shared_from_this();
    ++asked_;
  }
  void await_writable(Connection& connection) override {
    EXPECT_TRUE(ready_set_.await_writable(connection));
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
    if (next == nullptr) return false;
    (void)next->turn();
    round_.answer(context_);
    return true;
  }

  WorkerContext context_;
  LimitOptions limits_;
  Admission admission_{limits_};
  std::shared_ptr<Connection> waiting_;
  int asked_ = 0;  // the number of turns that the connection has asked for
  ReadySet ready_set_;
  Round round_;
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

inline std::string verify(std::uint64_t id, std::string_view key) {
  OutBuffer out;
  encode_verify(out, id, {}, {&key, 1});
  return text_of(out);
}

inline std::vector<std::uint64_t> ids(const std::vector<Reply>& replies) {
  std::vector<std::uint64_t> list;
  for (const Reply& reply : replies) list.push_back(reply.id);
  return list;
}
inline std::optional<latchkey_error> error_in(const Reply& reply) {
  latchkey_error code{};
  std::string_view sentence;
  if (reply.type != LATCHKEY_ERROR || decode_error(as_bytes(reply.body), code, sentence)) {
    return std::nullopt;
  }
  EXPECT_EQ(sentence, error_sentence(code));
  return code;
}
inline latchkey_verdict verdict_in(const Reply& reply) {
  std::vector<DecodedAnswer> answers;
  EXPECT_FALSE(decode_verified(as_bytes(reply.body), answers));
  return answers.size() == 1 ? answers[0].verdict : LATCHKEY_VERDICTS;
}

class ConnectionTest : public VerifierTest {
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
    connect();
  }
  ~ConnectionTest() override {
    connection_->close();
    host_.waiting_.reset();
  }
  ConnectionTest(const ConnectionTest&) = delete;
  ConnectionTest& operator=(const ConnectionTest&) = delete;

  // Makes the connection, in place of an earlier one that is closed.
  void connect() {
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) {
      throw std::runtime_error("socketpair failed");
    }
    caller_ = std::make_unique<Caller>(ends[0]);
    Peer peer;
    peer.uid = kUid;
    connection_ = std::make_shared<UnixConnection>(Descriptor(ends[1]), host_, host_.round_, peer,
                                                   kId, rights_);
    EXPECT_TRUE(host_.ready_set_.add(*connection_));
    host_.closed_ = 0;
  }
  // Lets the connection notice all that has happened on its socket.
  void notice() {
    while (host_.ready_set_.collect(false).connections > 0) {
    }
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
  Quiescence::Reader reader_{quiescence_};
  WorkerStats stats_;
  FakeHost host_;
  std::unique_ptr<Caller> caller_;
  std::shared_ptr<UnixConnection> connection_;
};

}  // namespace latchkey::test
