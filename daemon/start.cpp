#include "daemon/start.h"

#include <algorithm>
#include <stdexcept>
#include <thread>

#include "base/clock.h"
#include "daemon/aside.h"

namespace latchkey {

bool is_pending(std::span<const int> signals) {
  sigset_t pending;
  sigpending(&pending);
  return std::ranges::any_of(signals,
                             [&](int signal) { return sigismember(&pending, signal) == 1; });
}

std::shared_ptr<const Secrets> read_secrets(const Options& options) {
  const Aside<Secrets> reading([options] { return std::make_shared<const Secrets>(options); });
  const auto deadline = std::chrono::steady_clock::now() + options.freshness.start_timeout;
  while (!reading.done()) {
    if (is_pending(kEnds)) return nullptr;
    if (std::chrono::steady_clock::now() >= deadline) {
      throw std::runtime_error(
          "the secrets could not be read within `start_timeout`: does the file system of a pepper"
          " or a JWT secret hang?");
    }
    std::this_thread::sleep_for(kAsidePoll);
  }
  return reading.take();
}

std::vector<Finding> wait_loaded(const std::vector<std::unique_ptr<Loader>>& loaders,
                                 std::chrono::nanoseconds patience, bool first_attempt_only,
                                 const std::function<bool()>& interrupted,
                                 const std::function<void()>& waiting) {
  std::vector<Finding> trouble;
  for (const auto& loader : loaders) {
    std::int64_t deadline_ns = boot_ns() + patience.count();
    for (;;) {
      const auto unready = loader->wait_ready(std::chrono::milliseconds(100), first_attempt_only);
      if (!unready || interrupted()) break;
      const LoaderStatus status = loader->status();
      const bool goes_on = status.state == Refresh::State::kLoading || status.queue_in_the_way;
      if (goes_on) deadline_ns = boot_ns() + patience.count();
      waiting();
      const bool failed_once = first_attempt_only && status.rounds_failed > 0;
      if (!unready->final && !failed_once && boot_ns() < deadline_ns) continue;
      trouble.insert(trouble.end(), unready->why.begin(), unready->why.end());
      break;
    }
  }
  return trouble;
}

}  // namespace latchkey
