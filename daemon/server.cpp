#include "daemon/server.h"

#include <fcntl.h>
#include <pthread.h>
#include <spdlog/spdlog.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/post.hpp>
#include <cerrno>
#include <future>
#include <map>
#include <system_error>
#include <unordered_map>

#include "daemon/session.h"
#include "daemon/turns.h"
#include "keymap/clock.h"

namespace latchkey {
namespace asio = boost::asio;
using Protocol = asio::local::stream_protocol;
namespace {

constexpr auto kSweepEvery = std::chrono::milliseconds(250);
// After an accept that failed for want of descriptors or memory: trying at once would only spin.
constexpr auto kAcceptPause = std::chrono::milliseconds(100);
// So many that are refused may take their time to read why. A flood of others is told and closed.
constexpr std::size_t kRefusalsMax = 64;
// Of these, for callers without a rule: they must not keep others from being told.
constexpr std::size_t kStrangersMax = kRefusalsMax / 2;
// So long a worker gives turns before it looks for what else has come, and from whom; longer if
// they are all of one caller, since to look costs as much as a small answer.
constexpr std::int64_t kServeNs = 10'000, kServeOneNs = 100'000;
// A caller who is alone with a worker is answered at once on so many connections. With more,
// whoever comes next would wait for all of them before he is even accepted.
constexpr std::size_t kConnectionsAtOnce = 16;
// Of the kernel's memory for replies that are not read; it doubles the figure (socket(7)).
constexpr int kSendBuffer = 32 << 10;
// For databases, metrics, logs, secrets that are read anew, what the libraries open, those that are
// being refused, and Admission's reserve.
constexpr std::size_t kDescriptorsKept = 128;
static_assert(kDescriptorsKept >= kRefusalsMax + Admission::kReserved + 32);

int open_reserve() { return open("/dev/null", O_RDONLY | O_CLOEXEC); }

// What the kernel allows at most, if the limit of the process can be raised to it.
std::size_t descriptors_for(std::size_t wanted) {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return wanted;
  if (limit.rlim_cur < wanted) {
    rlimit raised = limit;
    raised.rlim_cur = std::min<rlim_t>(wanted, limit.rlim_max);
    if (setrlimit(RLIMIT_NOFILE, &raised) == 0) limit = raised;
  }
  return std::min<std::size_t>(wanted, limit.rlim_cur);
}

// As many connections as there are descriptors for.
LimitOptions within_descriptors(LimitOptions limits) {
  const std::size_t wanted = limits.connections + kDescriptorsKept;
  const std::size_t available = descriptors_for(wanted);
  if (available < wanted) {
    const std::size_t connections = available > 2 * kDescriptorsKept
                                        ? available - kDescriptorsKept
                                        : std::max<std::size_t>(1, available / 2);
    spdlog::warn(
        "this process may open {} files, so `connections` is {} instead of {}: the database needs"
        " some, too. Raise the limit (systemd: LimitNOFILE={}; else `ulimit -n`), or set fewer.",
        available, connections, limits.connections, wanted);
    limits.connections = connections;
    limits.connections_per_uid = std::min(limits.connections_per_uid, connections);
  }
  return limits;
}

}  // namespace

// ---- a worker

class Server::Worker : public SessionHost {
 public:
  Worker(const Options& options, std::size_t number, const std::string& name,
         Quiescence& quiescence, ServerHooks& hooks, Admission& admission)
      : options_(options),
        hooks_(hooks),
        admission_(admission),
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
    thread_ = std::thread([this] { run(); });
    // For `top -H` and debuggers. From here, so that a daemon that is ready has all its names.
    pthread_setname_np(thread_.native_handle(), name_.c_str());
  }
  void join() {
    if (thread_.joinable()) thread_.join();
  }

  asio::io_context& io() { return io_; }
  WorkerStats& stats() { return stats_; }
  [[nodiscard]] std::size_t load() const { return load_; }
  [[nodiscard]] const std::string& name() const { return name_; }
  [[nodiscard]] std::int64_t ticked_ns() const { return ticked_ns_; }

  // The rest runs on the worker's thread.

  void adopt(std::shared_ptr<const Policy> policy) {
    policy_ = std::move(policy);
    context_.verifier = &policy_->verifier;
    for (const auto& [key, session] : sessions_) session->apply(policy_->callers);
  }

  void open(Socket socket, const Peer& peer, const CallerId& id) {
    // By this worker's rules, which a reload may have changed since the connection was accepted.
    const auto rights = policy_->callers.rights_of(peer);
    const auto session = keep(std::move(socket), peer, id, rights.value_or(Rights{}));
    ++callers_[id];
    set_turn_length();
    if (!rights) {
      session->refuse(LATCHKEY_NOT_ALLOWED);
    } else if (draining_) {
      session->refuse(LATCHKEY_STOPPING);
    } else {
      session->start();
    }
  }

  // It was not admitted: `refused` is called when it is gone.
  void open_refused(Socket socket, const Peer& peer, const CallerId& id, latchkey_error code,
                    std::function<void()> refused) {
    const auto session = keep(std::move(socket), peer, id, Rights{});
    refused_.emplace(session.get(), std::move(refused));
    session->refuse(code);
  }

  void drain() {
    draining_ = true;
    sweep_.cancel();
    for (const auto& [key, session] : sessions_) session->drain();
    if (sessions_.empty()) work_.reset();
  }

  void close_all() {
    for (const auto& [key, session] : sessions_) session->close();
    work_.reset();
    io_.stop();
  }

  // The acceptor counts a connection from the moment it promises it to this worker.
  void promise() { ++load_; }

  // ---- SessionHost
  const ConversationContext& context() override { return context_; }
  BatchScratch& scratch() override { return scratch_; }
  const LimitOptions& limits() override { return policy_->limits; }
  Admission& admission() override { return admission_; }

  void ready(Session& session, bool again) override {
    if (!again && at_once() && turns_.empty()) {
      session.turn();
      return;
    }
    turns_.add(session.id(), session.shared_from_this());
    serve_soon();
  }

  void asked_in_vain(const CallerId& id, std::uint64_t keys) override { unknown_[id] += keys; }

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
    if (const auto refused = refused_.find(&session); refused != refused_.end()) {
      refused->second();
      refused_.erase(refused);
    } else {
      admission_.leave(session.id());
      const auto caller = callers_.find(session.id());
      if (--caller->second == 0) callers_.erase(caller);
      set_turn_length();
    }
    // Not now: the session is still on the stack.
    asio::post(io_, [this, key = &session] {
      sessions_.erase(key);
      if (draining_ && sessions_.empty()) work_.reset();
    });
  }

 private:
  void run() {
    const std::int64_t spin_ns = options_.listen.busy_poll.count();
    if (spin_ns == 0) {
      io_.run();
      return;
    }
    // To wake a sleeping thread takes longer than to answer: so this one looks again for a while.
    std::int64_t busy_ns = awake_ns();
    while (!io_.stopped()) {
      if (io_.poll() > 0) {
        busy_ns = awake_ns();
      } else if (awake_ns() - busy_ns >= spin_ns && io_.run_one() > 0) {
        busy_ns = awake_ns();
      }
    }
  }

  std::shared_ptr<Session> keep(Socket socket, const Peer& peer, const CallerId& id,
                                const Rights& rights) {
    boost::system::error_code ignored;
    socket.set_option(asio::socket_base::send_buffer_size(kSendBuffer), ignored);
    const auto session = std::make_shared<Session>(std::move(socket), *this, peer, id, rights);
    sessions_.emplace(session.get(), session);
    stats_.connections_opened.add();
    return session;
  }

  [[nodiscard]] bool one_caller() const { return callers_.size() <= 1; }
  // Without turns: there is nobody to make way for, and who comes next waits for few.
  [[nodiscard]] bool at_once() const {
    return one_caller() && (callers_.empty() || callers_.begin()->second <= kConnectionsAtOnce);
  }
  void set_turn_length() {
    context_.turn_work =
        at_once() ? ConversationContext::kTurnWorkAlone : ConversationContext::kTurnWorkAmongOthers;
  }

  void serve_soon() {
    if (!std::exchange(serving_, true)) asio::post(io_, [this] { serve(); });
  }

  void serve() {
    serving_ = false;
    const std::int64_t until_ns = awake_ns() + (one_caller() ? kServeOneNs : kServeNs);
    do {
      const auto session = turns_.next();
      if (!session) return;
      (*session)->turn();
    } while (awake_ns() < until_ns);
    if (!turns_.empty()) serve_soon();
  }

  // Closing a session leaves it where it stands: closed() takes it out later.
  void sweep() {
    ticked_ns_ = awake_ns();
    for (const auto& [id, keys] : unknown_) admission_.count_unknown(id, keys);
    unknown_.clear();
    sweep_.expires_after(kSweepEvery);
    sweep_.async_wait([this](const boost::system::error_code& error) {
      if (error || draining_) return;
      const std::int64_t now_ns = boot_ns(), idle_ns = admission_.idle_timeout_ns();
      for (const auto& [key, session] : sessions_) session->check_deadline(now_ns, idle_ns);
      sweep();
    });
  }

  // Fixed for the worker's life:
  const Options& options_;
  ServerHooks& hooks_;
  Admission& admission_;
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
  std::unordered_map<Session*, std::function<void()>> refused_;  // those that were not admitted
  std::map<CallerId, std::size_t> callers_;    // how many connections of each were admitted
  std::map<CallerId, std::uint64_t> unknown_;  // keys, since the last sweep
  Turns<std::shared_ptr<Session>> turns_;
  bool serving_ = false;
  bool draining_ = false;
  // Read by others:
  WorkerStats stats_;
  std::atomic<std::size_t> load_{0};
  std::atomic<std::int64_t> ticked_ns_{0};
  std::thread thread_;
};

// ---- the server

Server::Server(const Options& options, std::shared_ptr<const Policy> policy, Quiescence& quiescence,
               ServerHooks hooks)
    : options_(options),
      policy_(std::move(policy)),
      quiescence_(quiescence),
      hooks_(std::move(hooks)),
      admission_(within_descriptors(options.limits)),
      reserve_fd_(open_reserve()) {
  for (unsigned i = 0; i < options_.listen.workers; ++i) {
    const std::string name = "worker " + std::to_string(i);
    workers_.push_back(
        std::make_unique<Worker>(options_, i, name, quiescence_, hooks_, admission_));
    workers_.back()->adopt(policy_);
  }
}

Server::~Server() {
  for (const auto& worker : workers_) {
    asio::post(worker->io(), [&worker] { worker->close_all(); });
    worker->join();
  }
  acceptor_.reset();
  if (reserve_fd_ >= 0) close(reserve_fd_);
}

void Server::start(std::optional<int> listening) {
  if (!listening) {
    path_ = std::make_unique<SocketPath>(options_.listen.socket, "socket");
    listening = path_->listen(options_.listen.mode, options_.listen.group);
  }
  asio::io_context& io = workers_.front()->io();
  accept_pause_ = std::make_unique<asio::steady_timer>(io);
  acceptor_ = std::make_unique<Protocol::acceptor>(io, Protocol(), *listening);
  accept();
  for (const auto& worker : workers_) worker->start();
}

void Server::accept() {
  if (!acceptor_->is_open()) return;  // stop() has closed it
  Worker& worker = **std::ranges::min_element(
      workers_, {}, [](const auto& candidate) { return candidate->load(); });
  acceptor_->async_accept(
      worker.io(), [this, &worker](const boost::system::error_code& error, Socket socket) {
        if (error == asio::error::operation_aborted) return;
        if (error) {
          accept_stats_.accept_errors.add();
          refuse_without_descriptors();
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

void Server::accepted(Socket socket, Worker& worker) {
  const Peer peer = peer_of(socket.native_handle()).value_or(Peer{});
  const CallerId id = policy_->callers.id_of(peer);
  if (!policy_->callers.rights_of(peer)) {
    accept_stats_.refused_not_allowed.add();
    return refuse(std::move(socket), peer, id, LATCHKEY_NOT_ALLOWED, worker);
  }
  switch (admission_.enter(id)) {
    case Admitted::kTooManyConnections:
      accept_stats_.refused_overloaded.add();
      return refuse(std::move(socket), peer, id, LATCHKEY_OVERLOADED, worker);
    case Admitted::kOverQuota:
      accept_stats_.refused_uid_limit.add();
      return refuse(std::move(socket), peer, id, LATCHKEY_OVERLOADED, worker);
    case Admitted::kYes: break;
  }
  accept_stats_.accepted.add();
  worker.promise();
  asio::post(worker.io(), [&worker, socket = std::move(socket), peer, id]() mutable {
    worker.open(std::move(socket), peer, id);
  });
}

namespace {

// It fits the socket's buffer, or nothing does.
void say_error(int socket, latchkey_error code) {
  OutBuffer out;
  encode_error(out, 0, code, error_sentence(code));
  (void)send(socket, out.data(), out.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
}

}  // namespace

void Server::refuse(Socket socket, const Peer& peer, const CallerId& id, latchkey_error code,
                    Worker& worker) {
  const bool stranger = id.share.kind == Share::Kind::kNone;
  if (refusals_ >= (stranger ? kStrangersMax : kRefusalsMax)) {
    return say_error(socket.native_handle(), code);
  }
  ++refusals_;
  worker.promise();
  asio::post(worker.io(), [this, &worker, socket = std::move(socket), peer, id, code]() mutable {
    worker.open_refused(std::move(socket), peer, id, code, [this] { --refusals_; });
  });
}

// Those that wait would wait for ever: no descriptor is left to accept them with. So one is kept
// that can be given up, for each in turn to be told why not.
void Server::refuse_without_descriptors() {
  for (std::size_t i = 0; i < kRefusalsMax && reserve_fd_ >= 0; ++i) {
    close(std::exchange(reserve_fd_, -1));
    const int caller = accept4(acceptor_->native_handle(), nullptr, nullptr, SOCK_CLOEXEC);
    if (caller >= 0) {
      say_error(caller, LATCHKEY_OVERLOADED);
      close(caller);
      accept_stats_.refused_no_descriptors.add();
    }
    reserve_fd_ = open_reserve();
    if (caller < 0) return;
  }
  if (reserve_fd_ < 0) reserve_fd_ = open_reserve();
}

void Server::publish(const std::shared_ptr<const Policy>& policy) {
  admission_.set_limits(within_descriptors(policy->limits));
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
    closed.set_value();
  });
  closed.get_future().wait();
  if (path_) path_->remove();
  for (const auto& worker : workers_) {
    asio::post(worker->io(), [&worker] { worker->drain(); });
  }
  // Whoever has not taken its replies by then loses them.
  asio::io_context waiting;
  asio::steady_timer deadline(waiting, admission_.limits().drain_timeout);
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

std::vector<std::string> Server::stuck_since(std::int64_t awake_ns) const {
  std::vector<std::string> names;
  for (const auto& worker : workers_) {
    if (worker->ticked_ns() < awake_ns) names.push_back(worker->name());
  }
  return names;
}

}  // namespace latchkey
