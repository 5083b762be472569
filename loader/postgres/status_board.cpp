#include "loader/postgres/status_board.h"

#include <spdlog/spdlog.h>

#include <algorithm>

namespace latchkey {

StatusBoard::StatusBoard(const std::string& database, std::int64_t now_ns) {
  status_.database = database;
  status_.since_boot_ns = now_ns;
}

// ---- any thread

LoaderStatus StatusBoard::status() const {
  const std::lock_guard lock(mutex_);
  return status_;
}

std::optional<Unready> StatusBoard::wait_ready(std::chrono::milliseconds timeout,
                                               bool first_attempt_only) {
  std::unique_lock lock(mutex_);
  changed_.wait_for(lock, timeout, [&] {
    const bool given_up = first_attempt_only && status_.rounds_failed > 0;
    return ready_ || (unready_ && (unready_->final || given_up));
  });
  if (ready_) return std::nullopt;
  if (unready_) return unready_;
  return Unready{
      {{.lint = Lint::kDatabase,
        .count = 0,
        .about = status_.database,
        .text = "database \"" + status_.database +
                "\": the tables were not loaded within the time allowed (`start_timeout`)"}},
      false};
}

bool StatusBoard::wait_linted(std::chrono::milliseconds timeout) {
  std::unique_lock lock(mutex_);
  return changed_.wait_for(lock, timeout, [&] {
    return std::ranges::none_of(status_.sources,
                                [](const SourceStatus& source) { return source.comparing; });
  });
}

// ---- the loader's thread

bool StatusBoard::set_ready() {
  const std::lock_guard lock(mutex_);
  return !std::exchange(ready_, true);
}

void StatusBoard::set_unready(Unready why) {
  const std::lock_guard lock(mutex_);
  unready_ = std::move(why);
}

void StatusBoard::set_state(Refresh::State state, std::int64_t now_ns) {
  const std::lock_guard lock(mutex_);
  if (state == status_.state) return;
  if (state == Refresh::State::kLive) {
    if (const auto more = live_limit_.tell(now_ns)) {
      spdlog::info("database \"{}\": in step, listening for changes{}", status_.database, *more);
    }
  }
  status_.state = state;
  status_.since_boot_ns = now_ns;
}

void StatusBoard::set_trouble(const std::string& trouble, bool queue_in_the_way,
                              std::int64_t now_ns) {
  std::optional<std::string> more;
  {
    const std::lock_guard lock(mutex_);
    if (status_.trouble.empty() && !trouble.empty()) more = trouble_limit_.tell(now_ns);
    status_.trouble = trouble;
    status_.queue_in_the_way = queue_in_the_way;
  }
  if (more) spdlog::warn("database \"{}\": {}{}", status_.database, trouble, *more);
}

void StatusBoard::failed(const std::string& why, const std::string& advice, bool final, bool others,
                         std::int64_t now_ns) {
  {
    const std::lock_guard lock(mutex_);
    ++status_.failures;
    if (!others) ++status_.rounds_failed;
    // Logs each new trouble once, not at each attempt. The same trouble may come back as often as
    // others cause it.
    if (status_.last_error != why || status_.state == Refresh::State::kLive) {
      if (status_.last_error != why) failure_limit_ = {};
      if (const auto more = failure_limit_.tell(now_ns)) {
        spdlog::error("database \"{}\": {}{}", status_.database, why, *more);
      }
    }
    status_.last_error = why;
    status_.last_error_boot_ns = now_ns;
    if (!ready_ && !(unready_ && unready_->final)) {
      unready_ = Unready{{{.lint = Lint::kDatabase,
                           .count = 0,
                           .about = status_.database,
                           .text = "database \"" + status_.database + "\": " + why + advice}},
                         final};
    }
  }
  changed_.notify_all();
}

}  // namespace latchkey
