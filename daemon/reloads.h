// Reloads of the configuration, one at a time.
#pragma once

#include <boost/asio/io_context.hpp>
#include <boost/asio/steady_timer.hpp>
#include <chrono>
#include <optional>
#include <string>
#include <vector>

#include "config/reload_plan.h"
#include "daemon/aside.h"
#include "daemon/assembly.h"
#include "daemon/running.h"
#include "loader/postgres/connection.h"

namespace latchkey {

// The input of a reload. A name service or a file may hang, which must delay neither the watchdog
// nor SIGTERM. So Aside reads it on another thread, and the reload fails after a time limit.
struct FreshConfiguration {
  ReloadPlan plan;
  Secrets secrets;

  FreshConfiguration(const Options& running, const std::string& path)
      : plan(plan_reload(running, Options::load(path, read_conninfo))), secrets(plan.options) {}
};

class Reloads {
 public:
  Reloads(boost::asio::io_context& io, Running& running, std::string path);
  // Also stops a handler that is already queued, which cancelling the timer would not.
  void stop();
  // Requests during a reload lead to one more reload after it.
  void request();

 private:
  void wait();
  void read();
  void finish(const std::string& error, std::vector<std::string> need_restart = {});

  Running& running_;
  const std::string path_;
  boost::asio::steady_timer timer_;
  std::optional<Aside<FreshConfiguration>> reading_;
  std::chrono::steady_clock::time_point deadline_;
  bool under_way_ = false;
  bool again_ = false;
  bool stopped_ = false;
};

}  // namespace latchkey
