// One thread that answers: its event loop, connections, scratch memory, counters, and its
// Quiescence::Reader. No other thread writes a member that lies on the path of an answer.
//
// It waits in its ReadySet, for callers and for whatever wakes it. Asio has the rest: accepting,
// timers, and the work that other threads post. The worker lets Asio run only when that is due, so
// a request never passes through Asio.
#pragma once

#include <atomic>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <unordered_map>
#include <utility>

#include "base/descriptor.h"
#include "config/options.h"
#include "daemon/server/admission.h"
#include "daemon/server/connection.h"
#include "daemon/server/policy.h"
#include "daemon/server/ready_set.h"
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

  // Runs `work` on the worker's thread. Any thread may call it.
  template <typename Work>
  void post(Work&& work) {
    boost::asio::post(io_, std::forward<Work>(work));
    wake();
  }
  // For timers and acceptors. What makes them ready must wake the worker: wake_at(), watch().
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

  // ---- called on the worker's thread only, or before start()

  // Lets Asio run each time this descriptor becomes readable. Throws std::system_error.
  void watch(int descriptor) { ready_set_.watch(descriptor); }
  // Lets Asio run at this time, by awake_ns(), within a millisecond.
  void wake_at(std::int64_t awake_ns);
  // Lets Asio run before the worker waits again.
  void run_asio_soon() { asio_due_ = true; }
  void adopt(std::shared_ptr<const Policy> policy);
  void open(Descriptor socket, const Peer& peer, const CallerId& id);
  // Opens a connection that was not admitted, to send it the error. Calls `refused` when it is
  // closed.
  void open_refused(Descriptor socket, const Peer& peer, const CallerId& id, latchkey_error code,
                    std::function<void()> refused);
  void drain();
  void close_all();

  const WorkerContext& context() override { return context_; }
  const LimitOptions& limits() override { return policy_->limits; }
  Admission& admission() override { return admission_; }
  void ready(Connection& connection) override;
  void await_writable(Connection& connection) override;
  void asked_in_vain(const CallerId& id, std::uint64_t keys) override { unknown_[id] += keys; }
  void sync(SourceMask sources, std::chrono::milliseconds timeout,
            std::function<void(bool)> done) override;
  void closed(Connection& connection) override;

 private:
  void run();
  std::shared_ptr<Connection> keep(Descriptor socket, const Peer& peer, const CallerId& id,
                                   const Rights& rights);
  [[nodiscard]] bool one_caller() const { return callers_.size() <= 1; }
  void set_turn_length();
  void wake();
  [[nodiscard]] bool may_sleep() const;
  void give_turns();
  void run_asio();
  void set_alarm();
  void sweep();
  void end_if_drained();

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
  ReadySet ready_set_;
  Descriptor wake_;                // an eventfd, watched
  Descriptor alarm_;               // a timerfd, watched: the first of `due_ms_`
  std::set<std::int64_t> due_ms_;  // when Asio has to run
  bool asio_due_ = false;
  std::int64_t busy_ns_ = 0;  // when there was last something to do
  std::shared_ptr<const Policy> policy_;
  std::unordered_map<Connection*, std::shared_ptr<Connection>> connections_;
  std::unordered_map<Connection*, std::function<void()>> refused_;  // connections not admitted
  std::map<CallerId, std::size_t> callers_;    // the number of admitted connections of each
  std::map<CallerId, std::uint64_t> unknown_;  // unknown keys since the last sweep
  Turns<std::shared_ptr<Connection>> turns_;
  bool draining_ = false;
  // Other threads read these, and the acceptor increments `promised_`:
  WorkerStats stats_;
  std::atomic<std::size_t> promised_{0};
  std::atomic<std::int64_t> ticked_ns_{0};
  std::thread thread_;
};

}  // namespace latchkey
