// One thread that answers: its event loop, connections, scratch memory, counters, and its
// Quiescence::Reader. No other thread writes a member that lies on the path of an answer.
#pragma once

#include <atomic>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/steady_timer.hpp>
#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <unordered_map>

#include "config/options.h"
#include "daemon/server/admission.h"
#include "daemon/server/connection.h"
#include "daemon/server/policy.h"
#include "daemon/server/stats.h"
#include "daemon/server/turns.h"
#include "keymap/quiescence.h"

namespace latchkey {

class Worker : public ConnectionHost {
 public:
  // `options`, `quiescence`, `hooks` and `admission` outlive it.
  Worker(const Options& options, std::size_t number, const std::string& name,
         Quiescence& quiescence, ServerHooks& hooks, Admission& admission,
         std::unique_ptr<Door> door);

  void start();
  void join();

  boost::asio::io_context& io() { return io_; }
  WorkerStats& stats() { return stats_; }
  // Open connections, and connections that the acceptor has assigned by promise().
  [[nodiscard]] std::size_t connections() const { return promised_; }
  [[nodiscard]] const std::string& name() const { return name_; }
  // The time (awake_ns()) at which the loop last ran sweep().
  [[nodiscard]] std::int64_t ticked_ns() const { return ticked_ns_; }
  // The acceptor calls this when it assigns a connection to this worker, so that connections()
  // counts it at once.
  void promise() { ++promised_; }

  // ---- called on the worker's thread only

  void adopt(std::shared_ptr<const Policy> policy);
  void open(Connection::Socket socket, const Peer& peer, const CallerId& id);
  // Opens a connection that was not admitted, to send it the error. Calls `refused` when it is
  // closed.
  void open_refused(Connection::Socket socket, const Peer& peer, const CallerId& id,
                    latchkey_error code, std::function<void()> refused);
  void drain();
  void close_all();

  const WorkerContext& context() override { return context_; }
  const LimitOptions& limits() override { return policy_->limits; }
  Admission& admission() override { return admission_; }
  void ready(Connection& connection, bool again) override;
  void asked_in_vain(const CallerId& id, std::uint64_t keys) override { unknown_[id] += keys; }
  void sync(SourceMask sources, std::chrono::milliseconds timeout,
            std::function<void(bool)> done) override;
  void closed(Connection& connection) override;

 private:
  void run();
  std::shared_ptr<Connection> keep(Connection::Socket socket, const Peer& peer, const CallerId& id,
                                   const Rights& rights);
  [[nodiscard]] bool one_caller() const { return callers_.size() <= 1; }
  [[nodiscard]] bool at_once() const;
  void set_turn_length();
  void serve_soon();
  void serve();
  void sweep();

  // Constant for the worker's life:
  const Options& options_;
  ServerHooks& hooks_;
  Admission& admission_;
  std::string name_;
  Quiescence::Reader reader_;
  WorkerContext context_;
  std::unique_ptr<Door> door_;
  // Used on this thread only, except that other threads post to `io_`:
  boost::asio::io_context io_{1};
  boost::asio::executor_work_guard<boost::asio::io_context::executor_type> work_;
  boost::asio::steady_timer sweep_;
  std::shared_ptr<const Policy> policy_;
  std::unordered_map<Connection*, std::shared_ptr<Connection>> connections_;
  std::unordered_map<Connection*, std::function<void()>> refused_;  // connections not admitted
  std::map<CallerId, std::size_t> callers_;    // the number of admitted connections of each
  std::map<CallerId, std::uint64_t> unknown_;  // unknown keys since the last sweep
  Turns<std::shared_ptr<Connection>> turns_;
  bool serving_ = false;
  bool draining_ = false;
  // Other threads read these, and the acceptor increments `promised_`:
  WorkerStats stats_;
  std::atomic<std::size_t> promised_{0};
  std::atomic<std::int64_t> ticked_ns_{0};
  std::thread thread_;
};

}  // namespace latchkey
