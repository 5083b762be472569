// Communication with the service manager (sd_listen_fds(3), sd_notify(3), sd_watchdog_enabled(3)).
// Without a service manager, these functions do nothing.
#pragma once

#include <chrono>
#include <optional>
#include <string>

#include "daemon/observe/status_inputs.h"

namespace latchkey {

// The interval at which to call notify_alive(); nullopt if there is no watchdog.
[[nodiscard]] std::optional<std::chrono::microseconds> watchdog_period();

// The listening Unix socket that the service manager passed, if any. Throws std::runtime_error for
// the operator if it passed another kind of descriptor, or several.
[[nodiscard]] std::optional<int> passed_socket();

void notify_ready();
void notify_reloading();
void notify_stopping();
void notify_alive();
// Asks the service manager to extend the timeout of the current start or stop by `time`.
void notify_patience(std::chrono::microseconds time);
// The status line of `systemctl status`. Sends a text only if it has changed.
class ShownStatus {
 public:
  void show(const std::string& text);

 private:
  std::string shown_;
};

// One line: the sources that are not fresh, with state and duration, and the number of fresh ones.
[[nodiscard]] std::string status_line(const StatusInputs& inputs);
// The progress of the first loads.
[[nodiscard]] std::string loading_line(const std::vector<LoaderStatus>& loaders);

}  // namespace latchkey
