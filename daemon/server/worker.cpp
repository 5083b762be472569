#include "daemon/server/worker.h"

#include <pthread.h>

#include <boost/asio/post.hpp>
#include <utility>

#include "base/clock.h"

namespace latchkey {
namespace asio = boost::asio;
namespace {

constexpr auto kSweepEvery = std::chrono::milliseconds(250);
// The time for which a worker gives turns before it polls for new events. It is longer if all turns
// belong to one caller, because a poll costs as much as a small answer.
constexpr std::int64_t kServeNs = 10'000, kServeOneNs = 100'000;
// A worker with a single caller answers at once on up to this number of connections. With more, a
// new caller would wait for all of them before it is even accepted.
constexpr std::size_t kConnectionsAtOnce = 16;
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
      sweep_(io_) {
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
  const std::int64_t spin_ns = options_.listen.busy_poll.count();
  if (spin_ns == 0) {
    io_.run();
    return;
  }
  // Waking a sleeping thread takes longer than answering, so this thread polls for a while before
  // it sleeps.
  std::int64_t busy_ns = awake_ns();
  while (!io_.stopped()) {
    if (io_.poll() > 0) {
      busy_ns = awake_ns();
    } else if (awake_ns() - busy_ns >= spin_ns && io_.run_one() > 0) {
      busy_ns = awake_ns();
    }
  }
}

void Worker::adopt(std::shared_ptr<const Policy> policy) {
  policy_ = std::move(policy);
  context_.verifier = &policy_->verifier;
  for (const auto& [key, connection] : connections_) connection->apply(policy_->callers);
}

void Worker::open(Connection::Socket socket, const Peer& peer, const CallerId& id) {
  // This worker's rules decide: a reload may have changed them since the connection was accepted.
  const auto rights = policy_->callers.rights_of(peer);
  const auto connection = keep(std::move(socket), peer, id, rights.value_or(Rights{}));
  ++callers_[id];
  set_turn_length();
  if (!rights) {
    connection->refuse(LATCHKEY_NOT_ALLOWED);
  } else if (draining_) {
    connection->refuse(LATCHKEY_STOPPING);
  } else {
    connection->start();
  }
}

void Worker::open_refused(Connection::Socket socket, const Peer& peer, const CallerId& id,
                          latchkey_error code, std::function<void()> refused) {
  const auto connection = keep(std::move(socket), peer, id, Rights{});
  refused_.emplace(connection.get(), std::move(refused));
  connection->refuse(code);
}

std::shared_ptr<Connection> Worker::keep(Connection::Socket socket, const Peer& peer,
                                         const CallerId& id, const Rights& rights) {
  boost::system::error_code ignored;
  socket.set_option(asio::socket_base::send_buffer_size(kSendBuffer), ignored);
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
    if (draining_ && connections_.empty()) work_.reset();
  });
}

void Worker::drain() {
  draining_ = true;
  sweep_.cancel();
  for (const auto& [key, connection] : connections_) connection->drain();
  if (connections_.empty()) work_.reset();
}

void Worker::close_all() {
  for (const auto& [key, connection] : connections_) connection->close();
  work_.reset();
  io_.stop();
}

void Worker::ready(Connection& connection, bool again) {
  if (!again && at_once() && turns_.empty()) {
    connection.turn();
    return;
  }
  turns_.add(connection.id(), connection.shared_from_this());
  serve_soon();
}

// True if connections are answered without turns: there is no other caller, and a new caller would
// wait for few connections.
bool Worker::at_once() const {
  return one_caller() && (callers_.empty() || callers_.begin()->second <= kConnectionsAtOnce);
}

void Worker::set_turn_length() {
  context_.turn_work =
      at_once() ? WorkerContext::kTurnWorkAlone : WorkerContext::kTurnWorkAmongOthers;
}

void Worker::serve_soon() {
  if (!std::exchange(serving_, true)) asio::post(io_, [this] { serve(); });
}

void Worker::serve() {
  serving_ = false;
  const std::int64_t until_ns = awake_ns() + (one_caller() ? kServeOneNs : kServeNs);
  do {
    const auto connection = turns_.next();
    if (!connection) return;
    (*connection)->turn();
  } while (awake_ns() < until_ns);
  if (!turns_.empty()) serve_soon();
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
  wait->timer.async_wait([wait, finish](const boost::system::error_code& error) {
    if (error) return;
    if (wait->give_up) wait->give_up();
    finish(*wait, false);
  });
  wait->give_up = hooks_.start_sync(sources, [this, finish, weak = std::weak_ptr(wait)] {
    asio::post(io_, [finish, weak] {
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
  sweep_.async_wait([this](const boost::system::error_code& error) {
    if (error || draining_) return;
    const std::int64_t now_ns = boot_ns(), idle_ns = admission_.idle_timeout_ns();
    for (const auto& [key, connection] : connections_) connection->check_deadline(now_ns, idle_ns);
    sweep();
  });
}

}  // namespace latchkey
