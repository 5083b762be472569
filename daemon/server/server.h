// Workers and the socket they serve.
//
// A worker is one thread with its own io_context, connections, scratch memory, counters and
// Quiescence::Reader. The first worker also accepts, and hands each connection to the worker with
// the fewest connections. Except for the map, no other thread writes data on the path of an answer.
//
// Several callers of one worker have turns, so that a caller with many requests delays only itself.
// Admission tracks the quotas of callers.
#pragma once

#include <atomic>
#include <boost/asio/io_context.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/asio/steady_timer.hpp>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "base/descriptor.h"
#include "daemon/server/connection.h"
#include "daemon/server/policy.h"
#include "daemon/server/socket_path.h"
#include "keymap/quiescence.h"

namespace latchkey {

class Worker;

class Server {
 public:
  Server(const Options& options, std::shared_ptr<const Policy> policy, Quiescence& quiescence,
         ServerHooks hooks, DoorKind door);
  ~Server();
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  // Serves on `listening`, a listening Unix socket that the service manager made, or creates the
  // socket itself at the configured path. Throws std::runtime_error with a message for the
  // operator.
  void start(std::optional<int> listening);
  // Stops accepting, answers the requests that have arrived, and returns when all connections are
  // closed or `limits.drain_timeout` is over.
  void stop();
  // Gives `policy` to all workers; each applies it to its later answers.
  void publish(const std::shared_ptr<const Policy>& policy);

  [[nodiscard]] std::vector<const WorkerStats*> worker_stats() const;
  [[nodiscard]] const AcceptStats& accept_stats() const { return accept_stats_; }
  [[nodiscard]] const Admission& admission() const { return admission_; }
  // True if the socket's file is still the one made here, or if the service manager made the
  // socket.
  [[nodiscard]] bool socket_in_place() const { return path_ == nullptr || path_->in_place(); }
  // The names of workers whose loop has not run since `awake_ns`.
  [[nodiscard]] std::vector<std::string> stuck_since(std::int64_t awake_ns) const;

 private:
  void accept();
  void accept_some();
  void pause_accepting();
  void accepted(Descriptor socket);
  void refuse(Descriptor socket, const Peer& peer, const CallerId& id, latchkey_error code,
              Worker& worker);
  void refuse_without_descriptors();

  const Options& options_;
  std::shared_ptr<const Policy> policy_;  // the accepting worker's copy
  Quiescence& quiescence_;
  ServerHooks hooks_;
  DoorKind door_;
  AcceptStats accept_stats_;
  Admission admission_;
  std::atomic<std::size_t> refusals_{0};  // connections that are being refused
  Descriptor reserve_;                    // closed to refuse a caller when no descriptor is left
  std::vector<std::unique_ptr<Worker>> workers_;
  std::unique_ptr<SocketPath> path_;
  std::unique_ptr<boost::asio::local::stream_protocol::acceptor> acceptor_;
  std::unique_ptr<boost::asio::steady_timer> accept_pause_;
};

}  // namespace latchkey
