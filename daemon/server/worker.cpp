#include "daemon/server/worker.h"

#include <pthread.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/timerfd.h>

#include <algorithm>
#include <cerrno>
#include <system_error>
#include <utility>

#include "base/clock.h"

namespace latchkey {
namespace asio = boost::asio;
namespace {

constexpr std::int64_t kNsPerMs = 1'000'000;
constexpr auto kSweepEvery = std::chrono::milliseconds(250);
// The work of a turn beside its requests: recv and send. Others wait for that, too.
constexpr std::size_t kWorkOfTurn = 16;
// The kernel's buffer for unread replies; the kernel doubles the value (socket(7)).
constexpr int kSendBuffer = 32 << 10;

}  // namespace

Worker::Worker(const Options& options, std::size_t number, const std::string& name,
               Quiescence& quiescence, ServerHooks& hooks, Admission& admission,
               std::unique_ptr<Door> door)
    : options_(options),
      hooks_(hooks),
      admission_(admission),
      name_(name),
      reader_(quiescence, name),
      door_(std::move(door)),
      work_(asio::make_work_guard(io_)),
      sweep_(io_),
      wake_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)),
      alarm_(timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK)) {
  if (!wake_ || !alarm_)
    throw std::system_error(errno, std::generic_category(), "eventfd, timerfd");
  ready_set_.watch(wake_.get());
  ready_set_.watch(alarm_.get());
  context_.reader = &reader_;
  context_.stats = &stats_;
  context_.clock = read_clocks;
  context_.status_json = hooks.status_json;
  context_.worker = number;
  // The clock's period is that of the flush: a key that is used in each of two flush periods is
  // written in each.
  context_.use_clock =
      UseClock(std::chrono::duration_cast<std::chrono::microseconds>(options.last_used.flush));
}

void Worker::start() {
  sweep();
  thread_ = std::thread([this] { run(); });
  // The name is for `top -H` and debuggers. It is set here and not on the thread itself, so that
  // all names are set before the daemon is ready.
  pthread_setname_np(thread_.native_handle(), name_.c_str());
}

void Worker::join() {
  if (thread_.joinable()) thread_.join();
}

void Worker::run() {
  while (!io_.stopped()) {
    const auto collected = ready_set_.collect(may_sleep());
    if (!turns_.empty()) give_turns();
    if (options_.listen.busy_poll.count() > 0 && (collected.connections > 0 || collected.other)) {
      busy_ns_ = awake_ns();
    }
    if (asio_due_ || collected.other) run_asio();
  }
}

// False while callers wait for their turns, and while the worker spins: with busy_poll it spins for
// a while after the last change, because waking a sleeping thread takes longer than answering.
bool Worker::may_sleep() const {
  if (!turns_.empty() || asio_due_) return false;
  const std::int64_t spin_ns = options_.listen.busy_poll.count();
  return spin_ns == 0 || awake_ns() - busy_ns_ >= spin_ns;
}

void Worker::run_asio() {
  asio_due_ = false;
  // Read before poll(): a timer that expires during it may have to wait for the next one.
  const std::int64_t now_ms = awake_ns() / kNsPerMs;
  io_.poll();
  due_ms_.erase(due_ms_.begin(), due_ms_.upper_bound(now_ms));
  set_alarm();
}

// Rounded up, and kept once: a caller's many syncs make no more than a thousand entries a second.
void Worker::wake_at(std::int64_t awake_ns) {
  if (due_ms_.insert(awake_ns / kNsPerMs + 1).first == due_ms_.begin()) set_alarm();
}

// A timeout of epoll_wait() instead would make the kernel set and cancel a timer for each request.
void Worker::set_alarm() {
  itimerspec alarm{};
  if (!due_ms_.empty()) {
    alarm.it_value.tv_sec = *due_ms_.begin() / 1000;
    alarm.it_value.tv_nsec = *due_ms_.begin() % 1000 * kNsPerMs;
  }
  timerfd_settime(alarm_.get(), TFD_TIMER_ABSTIME, &alarm, nullptr);
}

// The eventfd is never read: each write is an edge.
void Worker::wake() { eventfd_write(wake_.get(), 1); }

// The requests of these turns are answered together. Their number is limited by the work, so that a
// request that arrives meanwhile does not wait long.
void Worker::give_turns() {
  for (std::size_t work = 0; work < context_.turn_work; work += kWorkOfTurn) {
    const auto connection = turns_.next();
    if (!connection) break;
    work += (*connection)->turn();
  }
  door_->answer(context_);
}

void Worker::adopt(std::shared_ptr<const Policy> policy) {
  policy_ = std::move(policy);
  context_.verifier = &policy_->verifier;
  for (const auto& [key, connection] : connections_) connection->apply(policy_->callers);
}

void Worker::open(Descriptor socket, const Peer& peer, const CallerId& id) {
  // This worker's rules decide: a reload may have changed them since the connection was accepted.
  const auto rights = policy_->callers.rights_of(peer);
  const auto connection = keep(std::move(socket), peer, id, rights.value_or(Rights{}));
  ++callers_[id];
  set_turn_length();
  if (!rights) {
    connection->refuse(LATCHKEY_NOT_ALLOWED);
  } else if (!ready_set_.add(*connection)) {
    connection->refuse(LATCHKEY_OVERLOADED);
  } else if (draining_) {
    connection->refuse(LATCHKEY_STOPPING);
  } else {
    connection->start();
  }
}

void Worker::open_refused(Descriptor socket, const Peer& peer, const CallerId& id,
                          latchkey_error code, std::function<void()> refused) {
  const auto connection = keep(std::move(socket), peer, id, Rights{});
  refused_.emplace(connection.get(), std::move(refused));
  (void)ready_set_.add(*connection);  // else its deadline ends it
  connection->refuse(code);
}

std::shared_ptr<Connection> Worker::keep(Descriptor socket, const Peer& peer, const CallerId& id,
                                         const Rights& rights) {
  setsockopt(socket.get(), SOL_SOCKET, SO_SNDBUF, &kSendBuffer, sizeof kSendBuffer);
  const auto connection = door_->open(std::move(socket), *this, peer, id, rights);
  connections_.emplace(connection.get(), connection);
  stats_.connections_opened.add();
  return connection;
}

void Worker::closed(Connection& connection) {
  stats_.connections_closed.add();
  --promised_;
  if (const auto refused = refused_.find(&connection); refused != refused_.end()) {
    refused->second();
    refused_.erase(refused);
  } else {
    admission_.leave(connection.id());
    const auto caller = callers_.find(connection.id());
    if (--caller->second == 0) callers_.erase(caller);
    set_turn_length();
  }
  // Erased later, because a function of the connection is still on the stack.
  asio::post(io_, [this, key = &connection] {
    connections_.erase(key);
    end_if_drained();
  });
  asio_due_ = true;
}

void Worker::drain() {
  draining_ = true;
  sweep_.cancel();
  for (const auto& [key, connection] : connections_) connection->drain();
  end_if_drained();
}

// Ends run().
void Worker::end_if_drained() {
  if (!draining_ || !connections_.empty()) return;
  work_.reset();
  asio_due_ = true;
}

void Worker::close_all() {
  for (const auto& [key, connection] : connections_) connection->close();
  work_.reset();
  io_.stop();
}

void Worker::ready(Connection& connection) {
  turns_.add(connection.id(), connection.shared_from_this());
}

void Worker::await_writable(Connection& connection) {
  if (!ready_set_.await_writable(connection)) connection.close();
}

void Worker::set_turn_length() {
  context_.turn_work =
      one_caller() ? WorkerContext::kTurnWorkAlone : WorkerContext::kTurnWorkAmongOthers;
}

void Worker::sync(SourceMask sources, std::chrono::milliseconds timeout,
                  std::function<void(bool)> done) {
  struct Wait {
    asio::steady_timer timer;
    std::function<void()> give_up;
    std::function<void(bool)> done;
  };
  const auto wait = std::make_shared<Wait>(Wait{asio::steady_timer(io_), {}, std::move(done)});
  const auto finish = [](Wait& ended, bool in_force) {
    if (!ended.done) return;
    ended.timer.cancel();
    std::exchange(ended.done, nullptr)(in_force);
  };
  // Only the timer's handler keeps the wait alive. The loader must not: its callback may outlive
  // this worker, and the timer must not outlive the worker's io_context.
  wait->timer.expires_after(timeout);
  wake_at(awake_ns() + std::chrono::nanoseconds(timeout).count());
  wait->timer.async_wait([wait, finish](const boost::system::error_code& error) {
    if (error) return;
    if (wait->give_up) wait->give_up();
    finish(*wait, false);
  });
  wait->give_up = hooks_.start_sync(sources, [this, finish, weak = std::weak_ptr(wait)] {
    post([finish, weak] {
      if (const auto waiting = weak.lock()) finish(*waiting, true);
    });
  });
}

// Closing a connection does not change `connections_` during the loop: closed() erases it later.
void Worker::sweep() {
  ticked_ns_ = awake_ns();
  for (const auto& [id, keys] : unknown_) admission_.count_unknown(id, keys);
  unknown_.clear();
  sweep_.expires_after(kSweepEvery);
  wake_at(ticked_ns_ + std::chrono::nanoseconds(kSweepEvery).count());
  sweep_.async_wait([this](const boost::system::error_code& error) {
    if (error || draining_) return;
    const std::int64_t now_ns = boot_ns(), idle_ns = admission_.idle_timeout_ns();
    for (const auto& [key, connection] : connections_) connection->check_deadline(now_ns, idle_ns);
    sweep();
  });
}

}  // namespace latchkey
