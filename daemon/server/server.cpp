#include "daemon/server/server.h"

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

#include "base/clock.h"
#include "daemon/server/worker.h"

namespace latchkey {
namespace asio = boost::asio;
using Protocol = asio::local::stream_protocol;
namespace {

// The pause after an accept that failed for lack of descriptors or memory: an immediate retry would
// spin.
constexpr auto kAcceptPause = std::chrono::milliseconds(100);
// Accepting takes longer than answering, so requests have their turn after this number.
constexpr int kAcceptsAtOnce = 4;
// This number of refused connections stay open for a moment, so that the caller can read the
// reason. Connections beyond it receive the reason and are closed at once.
constexpr std::size_t kRefusalsMax = 64;
// The part of kRefusalsMax for callers without a rule, so that they cannot use all of it.
constexpr std::size_t kStrangersMax = kRefusalsMax / 2;
// Descriptors kept for databases, metrics, logs, reading secrets, the libraries, connections that
// are being refused, and Admission's reserve.
constexpr std::size_t kDescriptorsKept = 128;
static_assert(kDescriptorsKept >= kRefusalsMax + Admission::kReserved + 32);

Descriptor open_reserve() { return Descriptor(open("/dev/null", O_RDONLY | O_CLOEXEC)); }

// Raises the process's limit of descriptors to `wanted`, at most to the kernel's hard limit.
// Returns the number available, at most `wanted`.
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

// Lowers the limit of connections to the number of available descriptors.
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

// ---- the server

Server::Server(const Options& options, std::shared_ptr<const Policy> policy, Quiescence& quiescence,
               ServerHooks hooks, DoorKind door)
    : options_(options),
      policy_(std::move(policy)),
      quiescence_(quiescence),
      hooks_(std::move(hooks)),
      door_(std::move(door)),
      admission_(within_descriptors(options.limits)),
      reserve_(open_reserve()) {
  for (unsigned i = 0; i < options_.listen.workers; ++i) {
    const std::string name = "worker " + std::to_string(i);
    workers_.push_back(
        std::make_unique<Worker>(options_, i, name, quiescence_, hooks_, admission_, door_.make()));
    workers_.back()->adopt(policy_);
  }
}

Server::~Server() {
  for (const auto& worker : workers_) {
    worker->post([&worker] { worker->close_all(); });
    worker->join();
  }
  acceptor_.reset();
}

void Server::start(std::optional<int> listening) {
  if (!listening) {
    path_ = std::make_unique<SocketPath>(options_.listen.socket, "socket");
    listening = path_->listen(options_.listen.mode, options_.listen.group);
  }
  asio::io_context& io = workers_.front()->io();
  accept_pause_ = std::make_unique<asio::steady_timer>(io);
  acceptor_ = std::make_unique<Protocol::acceptor>(io, Protocol(), *listening);
  acceptor_->native_non_blocking(true);
  workers_.front()->watch(*listening);
  accept();
  for (const auto& worker : workers_) worker->start();
}

void Server::accept() {
  if (!acceptor_->is_open()) return;  // closed by stop()
  acceptor_->async_wait(Protocol::acceptor::wait_read,
                        [this](const boost::system::error_code& error) {
                          if (error != asio::error::operation_aborted) accept_some();
                        });
  workers_.front()->run_asio_soon();  // connections may wait already
}

void Server::accept_some() {
  for (int i = 0; i < kAcceptsAtOnce; ++i) {
    Descriptor socket(
        accept4(acceptor_->native_handle(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (socket) {
      accepted(std::move(socket));
    } else if (errno == EAGAIN) {
      break;
    } else if (errno != EINTR && errno != ECONNABORTED) {
      accept_stats_.accept_errors.add();
      refuse_without_descriptors();
      return pause_accepting();
    }
  }
  accept();
}

void Server::pause_accepting() {
  accept_pause_->expires_after(kAcceptPause);
  workers_.front()->wake_at(awake_ns() + std::chrono::nanoseconds(kAcceptPause).count());
  accept_pause_->async_wait([this](const boost::system::error_code& cancelled) {
    if (!cancelled) accept();
  });
}

void Server::accepted(Descriptor socket) {
  Worker& worker = **std::ranges::min_element(
      workers_, {}, [](const auto& candidate) { return candidate->connections(); });
  const Peer peer = peer_of(socket.get()).value_or(Peer{});
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
  worker.post([&worker, socket = std::move(socket), peer, id]() mutable {
    worker.open(std::move(socket), peer, id);
  });
}

void Server::refuse(Descriptor socket, const Peer& peer, const CallerId& id, latchkey_error code,
                    Worker& worker) {
  const bool stranger = id.share.kind == Share::Kind::kNone;
  if (refusals_ >= (stranger ? kStrangersMax : kRefusalsMax)) {
    return door_.tell(socket.get(), code);
  }
  ++refusals_;
  worker.promise();
  worker.post([this, &worker, socket = std::move(socket), peer, id, code]() mutable {
    worker.open_refused(std::move(socket), peer, id, code, [this] { --refusals_; });
  });
}

// Without a free descriptor no waiting connection can be accepted, and they would wait for ever. So
// the server closes its reserve descriptor, accepts, refuses and closes one connection after the
// other, and opens the reserve again.
void Server::refuse_without_descriptors() {
  for (std::size_t i = 0; i < kRefusalsMax && reserve_; ++i) {
    reserve_.close();
    bool refused = false;
    if (const Descriptor caller(
            accept4(acceptor_->native_handle(), nullptr, nullptr, SOCK_CLOEXEC));
        caller) {
      door_.tell(caller.get(), LATCHKEY_OVERLOADED);
      accept_stats_.refused_no_descriptors.add();
      refused = true;
    }
    reserve_ = open_reserve();
    if (!refused) return;
  }
  if (!reserve_) reserve_ = open_reserve();
}

void Server::publish(const std::shared_ptr<const Policy>& policy) {
  admission_.set_limits(within_descriptors(policy->limits));
  for (const auto& worker : workers_) {
    worker->post([this, &worker, policy] {
      worker->adopt(policy);
      if (&worker == &workers_.front()) policy_ = policy;
    });
  }
}

void Server::stop() {
  if (acceptor_ == nullptr) return;
  std::promise<void> closed;
  workers_.front()->post([&] {
    boost::system::error_code ignored;
    acceptor_->close(ignored);
    accept_pause_->cancel();
    closed.set_value();
  });
  closed.get_future().wait();
  if (path_) path_->remove();
  for (const auto& worker : workers_) {
    worker->post([&worker] { worker->drain(); });
  }
  // A caller that has not read its replies by the deadline loses them.
  asio::io_context waiting;
  asio::steady_timer deadline(waiting, admission_.limits().drain_timeout);
  std::atomic<bool> all_done{false};
  deadline.async_wait([&](const boost::system::error_code& cancelled) {
    if (cancelled || all_done) return;
    for (const auto& worker : workers_) {
      worker->post([&worker] { worker->close_all(); });
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
