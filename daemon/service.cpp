#include "daemon/service.h"

#include <systemd/sd-daemon.h>

#include <cerrno>
#include <cmath>
#include <stdexcept>

#include <sys/socket.h>

#include "base/printable.h"

namespace latchkey {

std::optional<std::chrono::microseconds> watchdog_period() {
  std::uint64_t limit_us = 0;
  if (sd_watchdog_enabled(/*unset_environment=*/0, &limit_us) <= 0) return std::nullopt;
  // The manual advises half of the limit; a quarter tolerates one late notification.
  return std::chrono::microseconds(limit_us / 4);
}

std::optional<int> passed_socket() {
  const int count = sd_listen_fds(/*unset_environment=*/1);
  if (count <= 0) return std::nullopt;
  if (count > 1) {
    throw std::runtime_error("the service manager passes " + std::to_string(count) +
                             " sockets; latchkeyd takes one. Leave one ListenStream= in"
                             " latchkeyd.socket.");
  }
  if (sd_is_socket(SD_LISTEN_FDS_START, AF_UNIX, SOCK_STREAM, /*listening=*/1) <= 0) {
    throw std::runtime_error(
        "what the service manager passes is no listening Unix stream socket. In latchkeyd.socket,"
        " ListenStream= must be a path, and Accept= must not be yes.");
  }
  return SD_LISTEN_FDS_START;
}

void notify_ready() { sd_notify(0, "READY=1"); }
void notify_reloading() { sd_notify(0, "RELOADING=1"); }
void notify_stopping() { sd_notify(0, "STOPPING=1\nSTATUS=Answering what has arrived"); }
void notify_alive() { sd_notify(0, "WATCHDOG=1"); }
void notify_patience(std::chrono::microseconds time) {
  sd_notifyf(0, "EXTEND_TIMEOUT_USEC=%lld", static_cast<long long>(time.count()));
}

void ShownStatus::show(const std::string& text) {
  if (text == shown_) return;
  sd_notify(0, ("STATUS=" + printable(text)).c_str());
  shown_ = text;
}

std::string status_line(const StatusInputs& inputs) {
  std::size_t fresh = 0;
  std::string others;
  for (const SourceView& view : source_views(inputs)) {
    if (view.standing.state == SourceState::kFresh) {
      ++fresh;
      continue;
    }
    others += others.empty() ? "" : ", ";
    others += standing_text(view);
  }
  const std::string all = std::to_string(fresh) + (fresh == 1 ? " source" : " sources") + " fresh";
  return "Serving: " + (others.empty() ? all : others + "; " + all);
}

std::string loading_line(const std::vector<LoaderStatus>& loaders) {
  std::string line;
  for (const LoaderStatus& loader : loaders) {
    for (const SourceStatus& source : loader.sources) {
      if (!source.loading) continue;
      line += (line.empty() ? "Loading " : ", ") + source.name + ": " +
              std::to_string(source.load_rows) + " rows";
      if (source.rows_expected >= 0) {
        line += " of about " + std::to_string(std::llround(source.rows_expected));
      }
    }
  }
  return line.empty() ? "Connecting to the databases" : line;
}

}  // namespace latchkey
