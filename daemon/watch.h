// Supervision of the running daemon.
#pragma once

#include <boost/asio/io_context.hpp>
#include <boost/asio/steady_timer.hpp>
#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "daemon/observe/guess_watch.h"
#include "daemon/running.h"
#include "daemon/service.h"

namespace latchkey {

// The limit for a worker's loop: for /livez, and for the log without a service manager's watchdog.
constexpr std::int64_t kWorkerPatienceNs = 5'000'000'000;

// The names of workers and loaders whose loops do not run any more.
[[nodiscard]] std::vector<std::string> stuck(const Running& running,
                                             std::int64_t worker_patience_ns);

// Periodic tasks while the daemon answers callers.
class Watch {
 public:
  Watch(boost::asio::io_context& io, Running& running);
  void stop();

 private:
  void turn();
  void feed_watchdog();

  Running& running_;
  boost::asio::steady_timer timer_;
  std::optional<std::chrono::microseconds> watchdog_;
  std::chrono::microseconds every_{};
  std::vector<std::string> reported_;
  ShownStatus shown_;
  bool in_place_ = true;
  bool stopped_ = false;
  GuessWatch guesses_;
};

}  // namespace latchkey
