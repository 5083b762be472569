#include "bench/load/generator.h"

#include <pthread.h>
#include <sched.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <condition_variable>
#include <deque>
#include <exception>
#include <memory>
#include <mutex>
#include <system_error>
#include <thread>

namespace latchkey {
namespace {

using namespace std::chrono_literals;

// The longest time for which a connection with open requests may have no answer.
constexpr std::int64_t kSilenceNs = 10'000'000'000;
constexpr std::size_t kReadBytes = std::size_t{256} << 10;
// The maximum number of unsent requests in an open loop. Beyond it the server cannot reach the
// rate, and a latency has no meaning any more.
constexpr std::size_t kWaitingMax = 1'000'000;

std::int64_t now_ns() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

std::string reason(int error) { return std::generic_category().message(error); }

// A full backlog is no refusal: a program that opens thousands of connections has to wait.
int connect_to(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path) throw std::runtime_error("too long a path: " + path);
  path.copy(address.sun_path, path.size());
  const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) throw std::runtime_error("no socket to be had: " + reason(errno));
  if (connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    const int error = errno;
    close(fd);
    throw std::runtime_error("cannot connect to " + path + ": " + reason(error));
  }
  return fd;
}

struct Request {
  std::int64_t since_ns;
  std::span<const BenchKey> keys;
};

// The requests in flight, oldest first.
class InFlight {
 public:
  explicit InFlight(std::size_t depth) : requests_(depth) {}
  [[nodiscard]] bool full() const { return count_ == requests_.size(); }
  [[nodiscard]] std::size_t count() const { return count_; }
  void push(const Request& request) {
    const std::size_t at = first_ + count_++;
    requests_[at < requests_.size() ? at : at - requests_.size()] = request;
  }
  [[nodiscard]] const Request& oldest() const { return requests_[first_]; }
  void pop() {
    first_ = first_ + 1 == requests_.size() ? 0 : first_ + 1;
    --count_;
  }

 private:
  std::vector<Request> requests_;
  std::size_t first_ = 0, count_ = 0;
};

class Connection {
 public:
  Connection(const LoadSettings& settings, std::size_t depth)
      : peer_(make_peer(settings.peer)), in_flight_(depth), socket_(connect_to(settings.socket)) {
    try {
      peer_->greet(socket_);
    } catch (...) {
      close(socket_);
      throw;
    }
  }
  ~Connection() { close(socket_); }
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  [[nodiscard]] int socket() const { return socket_; }
  [[nodiscard]] bool full() const { return in_flight_.full(); }
  [[nodiscard]] std::size_t in_flight() const { return in_flight_.count(); }
  [[nodiscard]] bool silent(std::int64_t now) const {
    return in_flight_.count() > 0 && now - heard_ns_ > kSilenceNs;
  }

  void ask(KeySequence& keys, std::int64_t since_ns, std::int64_t now) {
    if (in_flight_.count() == 0) heard_ns_ = now;
    const Request request{since_ns, keys.next()};
    peer_->encode(out_, request.keys);
    in_flight_.push(request);
  }

  // Returns true if the kernel has all bytes.
  bool send_all() {
    while (sent_ < out_.size()) {
      const ssize_t count =
          send(socket_, out_.data() + sent_, out_.size() - sent_, MSG_NOSIGNAL | MSG_DONTWAIT);
      if (count < 0) {
        if (errno == EAGAIN || errno == EINTR) return false;
        throw std::runtime_error("the server hung up: " + reason(errno));
      }
      sent_ += static_cast<std::size_t>(count);
    }
    out_.clear();
    sent_ = 0;
    return true;
  }

  // Reads the available bytes. Calls `answered` for each answered request, with the time since
  // which it has waited. Returns the time at which the bytes were there.
  template <typename Answered>
  std::int64_t receive(std::vector<std::uint8_t>& scratch, const Answered& answered) {
    // The incomplete reply of the last call precedes the new bytes.
    std::ranges::copy(rest_, scratch.begin());
    const ssize_t count =
        recv(socket_, scratch.data() + rest_.size(), scratch.size() - rest_.size(), MSG_DONTWAIT);
    // The only reading of the clock for an answer: a closed loop asks the next question now.
    const std::int64_t now = now_ns();
    if (count < 0 && (errno == EAGAIN || errno == EINTR)) return now;
    if (count <= 0) {
      throw std::runtime_error("the server hung up" + (count < 0 ? ": " + reason(errno) : ""));
    }
    Bytes bytes(scratch.data(), rest_.size() + static_cast<std::size_t>(count));
    while (in_flight_.count() > 0) {
      const std::size_t used = peer_->judge(bytes, in_flight_.oldest().keys);
      if (used == 0) break;
      answered(now, in_flight_.oldest().since_ns);
      in_flight_.pop();
      bytes = bytes.subspan(used);
    }
    if (in_flight_.count() == 0 && !bytes.empty()) {
      throw WrongAnswer("an answer that nobody asked for");
    }
    if (bytes.size() > scratch.size() / 2) throw WrongAnswer("an answer that does not end");
    rest_.assign(bytes.begin(), bytes.end());
    heard_ns_ = now;
    return now;
  }

  bool awaits_room = false;  // the last send left a rest

 private:
  std::unique_ptr<Peer> peer_;
  InFlight in_flight_;
  int socket_;
  OutBuffer out_;
  std::size_t sent_ = 0;
  std::vector<std::uint8_t> rest_;
  std::int64_t heard_ns_ = 0;
};

// The state that all threads share.
class Course {
 public:
  Course(const LoadSettings& settings, unsigned threads)
      : settings_(settings),
        interval_ns_(std::min<std::int64_t>(1'000'000'000, ns(settings.duration) / 10)),
        waiting_(threads) {}

  // Waits until all threads are connected; none asks before that.
  void ready() {
    std::unique_lock lock(mutex_);
    if (--waiting_ == 0) {
      begin_ns_ =
          settings_.agree_on_begin ? settings_.agree_on_begin() : begin_after(settings_.warm_up);
      ready_.notify_all();
    }
    ready_.wait(lock, [&] { return waiting_ == 0 || failure_ != nullptr; });
  }
  [[nodiscard]] std::int64_t begin_ns() const { return begin_ns_; }
  [[nodiscard]] std::int64_t end_ns() const { return begin_ns_ + ns(settings_.duration); }
  [[nodiscard]] std::size_t interval_of(std::int64_t now) const {
    return static_cast<std::size_t>((now - begin_ns_) / interval_ns_);
  }
  [[nodiscard]] bool failed() const { return failed_; }

  void add(std::size_t index, const LatencyHistogram& latencies) {
    const std::lock_guard lock(mutex_);
    while (intervals_.size() <= index) {
      Interval next;
      next.begin_s =
          static_cast<double>(intervals_.size()) * static_cast<double>(interval_ns_) / 1e9;
      intervals_.push_back(next);
    }
    intervals_[index].latencies.merge(latencies);
    intervals_[index].requests += latencies.count();
  }
  void add_not_sent(std::uint64_t count) { not_sent_ += count; }
  void fail(std::exception_ptr why) {
    const std::lock_guard lock(mutex_);
    if (failure_ == nullptr) failure_ = std::move(why);
    failed_ = true;
    ready_.notify_all();
  }

  // Reports progress until all threads have ended.
  void watch(const std::function<void(const Interval&)>& progress) {
    std::size_t told = 0;
    for (;;) {
      std::this_thread::sleep_for(50ms);
      std::optional<Interval> complete;
      {
        const std::lock_guard lock(mutex_);
        if (failure_ != nullptr) return;
        if (waiting_ > 0) continue;
        const std::int64_t now = now_ns();
        // An interval is reported once the next one has begun in all threads.
        if (intervals_.size() > told + 1 &&
            now > begin_ns_ + static_cast<std::int64_t>(told + 1) * interval_ns_ + 100'000'000) {
          complete = intervals_[told++];
        } else if (now > end_ns() + 100'000'000) {
          return;
        }
      }
      if (complete && progress) progress(*complete);
    }
  }

  LoadResult result() {
    if (failure_ != nullptr) std::rethrow_exception(failure_);
    LoadResult result;
    // Answers after the end are not counted.
    const auto whole = static_cast<std::size_t>(ns(settings_.duration) / interval_ns_);
    intervals_.resize(std::min(intervals_.size(), whole));
    for (const Interval& interval : intervals_) {
      result.requests += interval.requests;
      result.latencies.merge(interval.latencies);
    }
    result.seconds =
        static_cast<double>(intervals_.size()) * static_cast<double>(interval_ns_) / 1e9;
    result.keys = result.requests * settings_.batch;
    result.intervals = std::move(intervals_);
    result.not_sent = not_sent_;
    return result;
  }

 private:
  static std::int64_t ns(std::chrono::milliseconds time) {
    return std::chrono::nanoseconds(time).count();
  }
  const LoadSettings& settings_;
  const std::int64_t interval_ns_;
  std::mutex mutex_;
  std::condition_variable ready_;
  unsigned waiting_;
  std::int64_t begin_ns_ = 0;
  std::vector<Interval> intervals_;
  std::exception_ptr failure_;
  std::atomic<bool> failed_{false};
  std::atomic<std::uint64_t> not_sent_{0};
};

class Thread {
 public:
  Thread(const LoadSettings& settings, const KeyTable& keys, Course& course, unsigned number)
      : settings_(settings),
        course_(course),
        number_(number),
        keys_(keys, settings.choice, number, settings.batch),
        epoll_(epoll_create1(EPOLL_CLOEXEC)),
        scratch_(kReadBytes + 2 * LATCHKEY_REPLY_BYTES_MAX) {}
  ~Thread() { close(epoll_); }
  Thread(const Thread&) = delete;
  Thread& operator=(const Thread&) = delete;

  void run() {
    try {
      pin();
      connect_all();
      course_.ready();
      if (course_.failed()) return;
      settings_.rate > 0 ? open_loop() : closed_loop();
      publish();
    } catch (...) {
      course_.fail(std::current_exception());
    }
  }

 private:
  void pin() const {
    if (settings_.processors.empty()) return;
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(settings_.processors[number_ % settings_.processors.size()], &set);
    if (pthread_setaffinity_np(pthread_self(), sizeof set, &set) != 0) {
      throw std::runtime_error("cannot run on the processor that --pin names");
    }
  }

  void connect_all() {
    for (unsigned i = number_; i < settings_.connections; i += settings_.threads) {
      connections_.push_back(std::make_unique<Connection>(settings_, settings_.depth));
      epoll_event event{};
      event.events = EPOLLIN;
      event.data.ptr = connections_.back().get();
      epoll_ctl(epoll_, EPOLL_CTL_ADD, connections_.back()->socket(), &event);
    }
  }

  // ---- closed loop

  void closed_loop() {
    std::int64_t now = now_ns();
    for (const auto& connection : connections_) refill(*connection, now);
    while (now < course_.end_ns() && !course_.failed()) {
      wait(100'000'000, [&](Connection& connection) { refill(connection, receive(connection)); });
      now = now_ns();
      turn(now);
    }
  }
  void refill(Connection& connection, std::int64_t now) {
    while (!connection.full()) connection.ask(keys_, now, now);
    send(connection);
  }

  // ---- open loop

  void open_loop() {
    const double gap_ns = 1e9 * settings_.threads / settings_.rate;
    // The threads' starts are staggered, so that together they keep an even pace.
    double next_ns = static_cast<double>(now_ns()) + gap_ns * number_ / settings_.threads;
    std::size_t turn_of = 0;
    for (std::int64_t now = now_ns(); now < course_.end_ns() && !course_.failed(); now = now_ns()) {
      for (; next_ns <= static_cast<double>(now); next_ns += gap_ns) {
        due_.push_back(static_cast<std::int64_t>(next_ns));
      }
      if (due_.size() > kWaitingMax) {
        throw std::runtime_error("the rate is out of reach: a million requests wait to be sent");
      }
      for (std::size_t tried = 0; !due_.empty() && tried < connections_.size();) {
        Connection& connection = *connections_[turn_of++ % connections_.size()];
        if (connection.full()) {
          ++tried;
          continue;
        }
        tried = 0;
        connection.ask(keys_, due_.front(), now);
        due_.pop_front();
        send(connection);
      }
      const std::int64_t patience =
          due_.empty() ? static_cast<std::int64_t>(next_ns) - now_ns() : 100'000'000;
      wait(std::clamp<std::int64_t>(patience, 0, 100'000'000),
           [&](Connection& connection) { receive(connection); });
      turn(now);
    }
    course_.add_not_sent(due_.size());
  }

  // ---- both loops

  template <typename Ready>
  void wait(std::int64_t patience_ns, const Ready& ready) {
    std::array<epoll_event, 64> events{};
    const timespec patience{patience_ns / 1'000'000'000, patience_ns % 1'000'000'000};
    const int count = epoll_pwait2(epoll_, events.data(), events.size(), &patience, nullptr);
    for (int i = 0; i < count; ++i) {
      auto& connection = *static_cast<Connection*>(events[static_cast<std::size_t>(i)].data.ptr);
      if ((events[static_cast<std::size_t>(i)].events & EPOLLOUT) != 0) send(connection);
      ready(connection);
    }
  }
  void send(Connection& connection) {
    const bool all = connection.send_all();
    if (all != connection.awaits_room) return;  // epoll reports what is needed already
    connection.awaits_room = !all;
    epoll_event event{};
    event.events = EPOLLIN | (all ? 0U : static_cast<std::uint32_t>(EPOLLOUT));
    event.data.ptr = &connection;
    epoll_ctl(epoll_, EPOLL_CTL_MOD, connection.socket(), &event);
  }
  std::int64_t receive(Connection& connection) {
    return connection.receive(scratch_, [&](std::int64_t now, std::int64_t since_ns) {
      if (now >= course_.begin_ns()) latencies_.record(now - since_ns);
    });
  }
  // Called once a loop: adds the counts to their interval.
  void turn(std::int64_t now) {
    if (now < course_.begin_ns()) return;
    const std::size_t interval = course_.interval_of(now);
    if (interval != interval_) {
      publish();
      interval_ = interval;
    }
    if (now < look_again_ns_) return;
    look_again_ns_ = now + 500'000'000;
    for (const auto& connection : connections_) {
      if (connection->silent(now)) throw std::runtime_error("the server has not answered for 10 s");
    }
  }
  void publish() {
    if (latencies_.count() > 0) course_.add(interval_, latencies_);
    latencies_.clear();
  }

  const LoadSettings& settings_;
  Course& course_;
  const unsigned number_;
  KeySequence keys_;
  int epoll_;
  std::vector<std::unique_ptr<Connection>> connections_;
  std::vector<std::uint8_t> scratch_;
  std::deque<std::int64_t> due_;  // open loop: the due times of unsent requests
  LatencyHistogram latencies_;
  std::size_t interval_ = 0;
  std::int64_t look_again_ns_ = 0;
};

}  // namespace

std::int64_t begin_after(std::chrono::milliseconds warm_up) {
  return now_ns() + std::chrono::nanoseconds(warm_up).count();
}

LoadResult run_load(const LoadSettings& settings, const KeyTable& keys,
                    const std::function<void(const Interval&)>& progress) {
  Course course(settings, settings.threads);
  std::vector<std::unique_ptr<Thread>> loads;
  for (unsigned i = 0; i < settings.threads; ++i) {
    loads.push_back(std::make_unique<Thread>(settings, keys, course, i));
  }
  std::vector<std::thread> threads;
  for (const auto& load : loads) threads.emplace_back([&load] { load->run(); });
  course.watch(progress);
  for (std::thread& thread : threads) thread.join();
  return course.result();
}

}  // namespace latchkey
