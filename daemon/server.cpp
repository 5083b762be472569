#include "daemon/server.h"

#include <fcntl.h>
#include <pthread.h>
#include <spdlog/spdlog.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/post.hpp>
#include <cerrno>
#include <future>
#include <system_error>
#include <unordered_map>

#include "daemon/session.h"
#include "keymap/clock.h"

namespace latchkey {
namespace asio = boost::asio;
using Protocol = asio::local::stream_protocol;
namespace {

constexpr auto kSweepEvery = std::chrono::milliseconds(250);
// After an accept that failed for want of descriptors or memory: trying at once would only spin.
constexpr auto kAcceptPause = std::chrono::milliseconds(100);

}  // namespace

// ---- a worker

class Server::Worker : public SessionHost {
 public:
  Worker(const Options& options, std::size_t number, const std::string& name,
         Quiescence& quiescence, ServerHooks& hooks)
      : options_(options),
        hooks_(hooks),
        name_(name),
        reader_(quiescence, name),
        work_(asio::make_work_guard(io_)),
        sweep_(io_) {
    context_.reader = &reader_;
    context_.stats = &stats_;
    context_.clock = read_clocks;
    context_.status_json = hooks.status_json;
    context_.worker = number;
    // Whoever uses a key in each of two flushes finds it written in each.
    context_.use_clock =
        UseClock(std::chrono::duration_cast<std::chrono::microseconds>(options.last_used.flush));
  }

  void start() {
    sweep();
    thread_ = std::thread([this] { io_.run(); });
    // For `top -H` and debuggers. From here, so that a daemon that is ready has all its names.
    pthread_setname_np(thread_.native_handle(), name_.c_str());
  }
  void join() {
    if (thread_.joinable()) thread_.join();
  }

  asio::io_context& io() { return io_; }
  WorkerStats& stats() { return stats_; }
  [[nodiscard]] std::size_t load() const { return load_; }

  // The rest runs on the worker's thread.

  void adopt(std::shared_ptr<const Policy> policy) {
    policy_ = std::move(policy);
    context_.verifier = &policy_->verifier;
    for (const auto& session : all()) session->apply(policy_->callers);
  }

  void open(Protocol::socket socket, const Peer& peer, std::optional<latchkey_error> refusal) {
    // By this worker's rules, which a reload may have changed since the connection was accepted.
    const auto rights = policy_->callers.rights_of(peer);
    if (!rights && !refusal) refusal = LATCHKEY_NOT_ALLOWED;
    const auto session =
        std::make_shared<Session>(std::move(socket), *this, peer, rights.value_or(Rights{}));
    sessions_.emplace(session.get(), session);
    stats_.connections_opened.add();
    if (refusal) {
      session->refuse(*refusal);
    } else if (draining_) {
      session->refuse(LATCHKEY_STOPPING);
    } else {
      session->start();
    }
  }

  void drain() {
    draining_ = true;
    sweep_.cancel();
    for (const auto& session : all()) session->drain();
    if (sessions_.empty()) work_.reset();
  }

  void close_all() {
    for (const auto& session : all()) session->close();
    work_.reset();
    io_.stop();
  }

  // The acceptor counts a connection from the moment it promises it to this worker.
  void promise() { ++load_; }

  // ---- SessionHost
  const ConversationContext& context() override { return context_; }
  BatchScratch& scratch() override { return scratch_; }
  const LimitOptions& limits() override { return options_.limits; }

  void sync(const Conversation::Sync& sync, std::function<void(bool)> done) override {
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
    // The timer's handler is what keeps the wait alive. The loader must not: what it holds may
    // outlive this worker, and the timer with it.
    wait->timer.expires_after(std::chrono::milliseconds(sync.timeout_ms));
    wait->timer.async_wait([wait, finish](const boost::system::error_code& error) {
      if (error) return;
      if (wait->give_up) wait->give_up();
      finish(*wait, false);
    });
    wait->give_up = hooks_.start_sync(sync.sources, [this, finish, weak = std::weak_ptr(wait)] {
      asio::post(io_, [finish, weak] {
        if (const auto waiting = weak.lock()) finish(*waiting, true);
      });
    });
  }

  void closed(Session& session) override {
    stats_.connections_closed.add();
    --load_;
    // Not now: the session is still on the stack.
    asio::post(io_, [this, key = &session] {
      sessions_.erase(key);
      if (draining_ && sessions_.empty()) work_.reset();
    });
  }

 private:
  std::vector<std::shared_ptr<Session>> all() const {
    std::vector<std::shared_ptr<Session>> list;
    for (const auto& [key, session] : sessions_) list.push_back(session);
    return list;
  }

  void sweep() {
    sweep_.expires_after(kSweepEvery);
    sweep_.async_wait([this](const boost::system::error_code& error) {
      if (error || draining_) return;
      const std::int64_t now_ns = boot_ns();
      for (const auto& session : all()) session->check_deadline(now_ns);
      sweep();
    });
  }

  // Fixed for the worker's life:
  const Options& options_;
  ServerHooks& hooks_;
  std::string name_;
  Quiescence::Reader reader_;
  ConversationContext context_;
  // Changing, on this thread only:
  asio::io_context io_{1};
  asio::executor_work_guard<asio::io_context::executor_type> work_;
  asio::steady_timer sweep_;
  std::shared_ptr<const Policy> policy_;
  BatchScratch scratch_;
  std::unordered_map<Session*, std::shared_ptr<Session>> sessions_;
  bool draining_ = false;
  // Read by others:
  WorkerStats stats_;
  std::atomic<std::size_t> load_{0};
  std::thread thread_;
};

// ---- the server

Server::Server(const Options& options, std::shared_ptr<const Policy> policy, Quiescence& quiescence,
               ServerHooks hooks)
    : options_(options),
      policy_(std::move(policy)),
      quiescence_(quiescence),
      hooks_(std::move(hooks)) {
  for (unsigned i = 0; i < options_.listen.workers; ++i) {
    const std::string name = "worker " + std::to_string(i);
    workers_.push_back(std::make_unique<Worker>(options_, i, name, quiescence_, hooks_));
    workers_.back()->adopt(policy_);
  }
}

Server::~Server() {
  for (const auto& worker : workers_) {
    asio::post(worker->io(), [&worker] { worker->close_all(); });
    worker->join();
  }
  acceptor_.reset();
  if (lock_fd_ >= 0) close(lock_fd_);
}

void Server::start() {
  claim_path();
  const std::string& path = options_.listen.socket;
  asio::io_context& io = workers_.front()->io();
  accept_pause_ = std::make_unique<asio::steady_timer>(io);
  acceptor_ = std::make_unique<Protocol::acceptor>(io);
  // Nobody but us until the mode is set: umask decides what bind() creates.
  const mode_t old_mask = umask(0177);
  boost::system::error_code error;
  acceptor_->open(Protocol(), error);
  if (!error) acceptor_->bind(Protocol::endpoint(path), error);
  umask(old_mask);
  if (!error && options_.listen.group &&
      chown(path.c_str(), static_cast<uid_t>(-1), *options_.listen.group) != 0) {
    throw std::runtime_error(
        "cannot give " + path +
        " to the `group` of the configuration: " + std::generic_category().message(errno) +
        ". The daemon's user must be a member (systemd: SupplementaryGroups=).");
  }
  if (!error && chmod(path.c_str(), options_.listen.mode) != 0) {
    error.assign(errno, boost::system::system_category());
  }
  if (!error) acceptor_->listen(asio::socket_base::max_listen_connections, error);
  if (error) {
    throw std::runtime_error("cannot listen on " + path + ": " + error.message() +
                             ". Does its folder exist, and may this user write there?");
  }
  accept();
  for (const auto& worker : workers_) worker->start();
}

// A socket file that nobody listens on is left over from a crash and can go. Anything else is
// somebody else's, and stays.
void Server::claim_path() {
  const std::string& path = options_.listen.socket;
  const std::string lock = path + ".lock";
  lock_fd_ = open(lock.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (lock_fd_ < 0) {
    throw std::runtime_error("cannot create " + lock + ": " +
                             std::generic_category().message(errno) +
                             ". Does the folder exist, and may this user write there?");
  }
  if (flock(lock_fd_, LOCK_EX | LOCK_NB) != 0) {
    throw std::runtime_error("another latchkeyd serves " + path +
                             ". Stop it first, or set another `socket`.");
  }
  struct stat info {};
  if (lstat(path.c_str(), &info) != 0) return;
  if (!S_ISSOCK(info.st_mode)) {
    throw std::runtime_error(path +
                             " exists and is not a socket. Move it away, or set another"
                             " `socket`.");
  }
  asio::io_context io;
  Protocol::socket probe(io);
  boost::system::error_code error;
  probe.connect(Protocol::endpoint(path), error);
  if (error != asio::error::connection_refused) {
    throw std::runtime_error("some other program listens on " + path +
                             ". Stop it first, or set another `socket`.");
  }
  unlink(path.c_str());
}

void Server::accept() {
  if (!acceptor_->is_open()) return;  // stop() has closed it
  Worker& worker = **std::ranges::min_element(
      workers_, {}, [](const auto& candidate) { return candidate->load(); });
  acceptor_->async_accept(worker.io(), [this, &worker](const boost::system::error_code& error,
                                                       Protocol::socket socket) {
    if (error == asio::error::operation_aborted) return;
    if (error) {
      accept_stats_.accept_errors.add();
      accept_pause_->expires_after(kAcceptPause);
      accept_pause_->async_wait([this](const boost::system::error_code& cancelled) {
        if (!cancelled) accept();
      });
      return;
    }
    accepted(std::move(socket), worker);
    accept();
  });
}

void Server::accepted(Protocol::socket socket, Worker& worker) {
  std::size_t open = 0;
  for (const auto& each : workers_) open += each->load();
  const auto peer = peer_of(socket.native_handle());
  const auto rights = peer ? policy_->callers.rights_of(*peer) : std::nullopt;
  std::optional<latchkey_error> refusal;
  if (!rights) {
    refusal = LATCHKEY_NOT_ALLOWED;
    accept_stats_.refused_not_allowed.add();
  } else if (open >= options_.limits.connections) {
    refusal = LATCHKEY_OVERLOADED;
    accept_stats_.refused_overloaded.add();
  } else {
    accept_stats_.accepted.add();
  }
  worker.promise();
  asio::post(worker.io(), [&worker, socket = std::move(socket), peer = peer.value_or(Peer{}),
                           refusal]() mutable { worker.open(std::move(socket), peer, refusal); });
}

void Server::publish(const std::shared_ptr<const Policy>& policy) {
  for (const auto& worker : workers_) {
    asio::post(worker->io(), [this, &worker, policy] {
      worker->adopt(policy);
      if (&worker == &workers_.front()) policy_ = policy;
    });
  }
}

void Server::stop() {
  if (acceptor_ == nullptr) return;
  std::promise<void> closed;
  asio::post(workers_.front()->io(), [&] {
    boost::system::error_code ignored;
    acceptor_->close(ignored);
    accept_pause_->cancel();
    // Ours: the lock says that nobody else can have put another socket there.
    unlink(options_.listen.socket.c_str());
    closed.set_value();
  });
  closed.get_future().wait();
  for (const auto& worker : workers_) {
    asio::post(worker->io(), [&worker] { worker->drain(); });
  }
  // Whoever has not taken its replies by then loses them.
  asio::io_context waiting;
  asio::steady_timer deadline(waiting, options_.limits.drain_timeout);
  std::atomic<bool> all_done{false};
  deadline.async_wait([&](const boost::system::error_code& cancelled) {
    if (cancelled || all_done) return;
    for (const auto& worker : workers_) {
      asio::post(worker->io(), [&worker] { worker->close_all(); });
    }
  });
  std::thread watch([&] { waiting.run(); });
  for (const auto& worker : workers_) worker->join();
  all_done = true;
  asio::post(waiting, [&] { deadline.cancel(); });
  watch.join();
}

std::vector<const WorkerStats*> Server::worker_stats() const {
  std::vector<const WorkerStats*> list;
  for (const auto& worker : workers_) list.push_back(&worker->stats());
  return list;
}

}  // namespace latchkey
