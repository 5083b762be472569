#include "daemon/reloads.h"

#include <spdlog/fmt/ranges.h>
#include <spdlog/spdlog.h>
#include <exception>
#include <memory>
#include <utility>

#include "daemon/service.h"

namespace latchkey {
namespace {

constexpr auto kReadPatience = std::chrono::seconds(10);

}  // namespace

Reloads::Reloads(boost::asio::io_context& io, Running& running, std::string path)
    : running_(running), path_(std::move(path)), timer_(io) {}

void Reloads::stop() {
  stopped_ = true;
  timer_.cancel();
}

void Reloads::request() {
  if (under_way_) {
    again_ = true;
    return;
  }
  under_way_ = true;
  running_.reload_begun();
  notify_reloading();
  if (reading_ && !reading_->done()) {
    return finish("what an earlier reload reads (a file, a name service) still hangs");
  }
  try {
    reading_.emplace([options = running_.options, path = path_] {
      return std::make_shared<const FreshConfiguration>(options, path);
    });
  } catch (const std::exception& error) {  // no thread, or no memory
    return finish(error.what());
  }
  deadline_ = std::chrono::steady_clock::now() + kReadPatience;
  wait();
}

void Reloads::wait() {
  timer_.expires_after(kAsidePoll);
  timer_.async_wait([this](const boost::system::error_code& cancelled) {
    if (cancelled || stopped_) return;
    if (reading_->done()) return read();
    if (std::chrono::steady_clock::now() < deadline_) return wait();
    reading_->abandon();
    finish(
        "the configuration and its secrets could not be read within 10 s: does a name service"
        " or a file system hang?");
  });
}

void Reloads::read() {
  std::string error;
  std::vector<std::string> need_restart;
  try {
    const auto reading = reading_->take();
    reading_.reset();
    running_.take_over(reading->plan, reading->secrets);
    spdlog::info("reloaded: limits, log level, peppers, JWT secrets and [[allow]] rules");
    need_restart = reading->plan.restart;
    if (!reading->plan.restart.empty()) {
      spdlog::warn("these have changed, too, and need a restart to take effect: {}",
                   fmt::join(reading->plan.restart, ", "));
    }
  } catch (const std::exception& caught) {
    reading_.reset();
    error = caught.what();
  }
  finish(error, std::move(need_restart));
}

void Reloads::finish(const std::string& error, std::vector<std::string> need_restart) {
  if (!error.empty()) spdlog::error("reload failed, everything stays as it was: {}", error);
  under_way_ = false;
  running_.reloaded(error, std::move(need_restart), again_);
  notify_ready();
  if (std::exchange(again_, false)) request();
}

}  // namespace latchkey
