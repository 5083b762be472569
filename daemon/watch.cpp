#include "daemon/watch.h"

#include <spdlog/fmt/ranges.h>
#include <spdlog/spdlog.h>
#include <algorithm>
#include <memory>
#include <utility>

#include "base/clock.h"
#include "daemon/observe/status.h"

namespace latchkey {
namespace {

// Long enough for a resolver's longest wait (resolv.conf(5): attempts, timeout, servers), and for
// the end of a load in which all rows are new.
constexpr std::int64_t kLoaderPatienceNs = 60'000'000'000;

}  // namespace

std::vector<std::string> stuck(const Running& running, std::int64_t worker_patience_ns) {
  const std::int64_t now_ns = awake_ns();
  std::vector<std::string> names = running.server->stuck_since(now_ns - worker_patience_ns);
  for (const auto& loader : running.loaders) {
    if (loader->ticked_ns() < now_ns - kLoaderPatienceNs) {
      names.push_back("loader of " + loader->database());
    }
  }
  return names;
}

Watch::Watch(boost::asio::io_context& io, Running& running)
    : running_(running), timer_(io), watchdog_(watchdog_period()) {
  every_ = std::chrono::seconds(1);
  if (watchdog_) every_ = std::min(every_, *watchdog_);
  turn();
}

void Watch::stop() {
  stopped_ = true;
  timer_.cancel();
}

void Watch::turn() {
  if (stopped_) return;  // the handler was already queued when stop() was called
  feed_watchdog();
  std::shared_ptr<const Policy> held;
  const StatusInputs inputs = running_.status(held);
  shown_.show(status_line(inputs));
  if (std::exchange(in_place_, inputs.socket_in_place) && !in_place_) {
    spdlog::error(
        "the socket {} is gone, or another file stands there: no new caller finds latchkeyd."
        " Restart it, and find out who cleans that folder.",
        running_.options.listen.socket);
  }
  for (const auto& suspect :
       guesses_.look(inputs.callers, held->limits.unknown_keys_logged, awake_ns())) {
    spdlog::warn(
        "uid {} asked for {} unknown keys within {} s: somebody guesses, or a client holds keys"
        " of another installation. `latchkey status` counts them by uid; of callers without"
        " `reasons`, refused keys are among them.",
        suspect.uid, suspect.keys, suspect.for_ns / 1'000'000'000);
  }
  timer_.expires_after(every_);
  timer_.async_wait([this](const boost::system::error_code& error) {
    if (!error) turn();
  });
}

void Watch::feed_watchdog() {
  // Half of the time after which the service manager would end the daemon.
  const std::int64_t patience_ns =
      watchdog_ ? std::chrono::nanoseconds(*watchdog_).count() * 2 : kWorkerPatienceNs;
  const auto names = stuck(running_, patience_ns);
  if (names.empty()) {
    if (watchdog_) notify_alive();
  } else if (names != reported_) {
    spdlog::error("{} stuck: {}", fmt::join(names, ", "),
                  watchdog_ ? "the service manager will end and start latchkeyd"
                            : "restart latchkeyd if it does not go on by itself");
  }
  reported_ = names;
}

}  // namespace latchkey
