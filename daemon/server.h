// Workers and the socket they serve.
//
// A worker is one thread with a world of its own: io_context, sessions, scratch memory, counters, a
// seat at the quiescence. The first worker also accepts, and hands each connection to the worker
// that has the fewest. Nothing that readers touch is written by another thread, but for the map.
#pragma once

#include <boost/asio/io_context.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/asio/steady_timer.hpp>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "daemon/callers.h"
#include "daemon/conversation.h"
#include "daemon/options.h"
#include "daemon/stats.h"
#include "keymap/quiescence.h"
#include "keymap/verdict.h"

namespace latchkey {

// What answers depend on and a reload may exchange; immutable once published.
struct Policy {
  Verifier verifier;
  CallerRules callers;
};

// Asks the databases behind `sources`; calls back, on any thread, when all of them have answered.
// The returned function gives the wait up.
using SyncStarter =
    std::function<std::function<void()>(SourceMask sources, std::function<void()> done)>;

struct ServerHooks {
  SyncStarter start_sync;
  std::function<std::string(const Rights&)> status_json;
};

class Server {
 public:
  Server(const Options& options, std::shared_ptr<const Policy> policy, Quiescence& quiescence,
         ServerHooks hooks);
  ~Server();
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  // Takes the socket's path and serves. Throws std::runtime_error with a message for the operator.
  void start();
  // Stops accepting, answers what has arrived, and returns when all connections are closed or
  // `limits.drain_timeout` is over.
  void stop();
  // From now on answers follow `policy`.
  void publish(const std::shared_ptr<const Policy>& policy);

  [[nodiscard]] std::vector<const WorkerStats*> worker_stats() const;
  [[nodiscard]] const AcceptStats& accept_stats() const { return accept_stats_; }

 private:
  class Worker;

  void claim_path();
  void accept();
  void accepted(boost::asio::local::stream_protocol::socket socket, Worker& worker);

  const Options& options_;
  std::shared_ptr<const Policy> policy_;  // the accepting worker's copy
  Quiescence& quiescence_;
  ServerHooks hooks_;
  AcceptStats accept_stats_;
  std::vector<std::unique_ptr<Worker>> workers_;
  int lock_fd_ = -1;
  std::unique_ptr<boost::asio::local::stream_protocol::acceptor> acceptor_;
  std::unique_ptr<boost::asio::steady_timer> accept_pause_;
};

}  // namespace latchkey
