// What the service manager gives us and is told (sd_listen_fds(3), sd_notify(3),
// sd_watchdog_enabled(3)). Without one, all of it does nothing.
#pragma once

#include <chrono>
#include <optional>
#include <string>

#include "daemon/observe/status_inputs.h"

namespace latchkey {

// How often to call Service::alive(); nothing if nobody watches.
[[nodiscard]] std::optional<std::chrono::microseconds> watchdog_period();

// The listening Unix socket that was passed to us, if one was. Throws std::runtime_error for the
// operator if it is something else, or there are several.
[[nodiscard]] std::optional<int> passed_socket();

void notify_ready();
void notify_reloading();
void notify_stopping();
void notify_alive();
// What is under way takes longer: not to be given up for so long.
void notify_patience(std::chrono::microseconds time);
// Shown by systemctl status; only what is new is sent.
class ShownStatus {
 public:
  void show(const std::string& text);

 private:
  std::string shown_;
};

// One line: whether all sources are fresh, else which are not, since when.
[[nodiscard]] std::string status_line(const StatusInputs& inputs);
// How far first loads are.
[[nodiscard]] std::string loading_line(const std::vector<LoaderStatus>& loaders);

}  // namespace latchkey
