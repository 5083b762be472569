#include "daemon/log.h"

#include <limits.h>
#include <poll.h>
#include <spdlog/async.h>
#include <spdlog/sinks/sink.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/sinks/systemd_sink.h>
#include <spdlog/spdlog.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <future>
#include <memory>
#include <system_error>
#include <thread>
#include <utility>

#include "base/printable.h"

namespace latchkey {
namespace {

constexpr std::size_t kLogLines = 8192;
constexpr auto kLogPatience = std::chrono::seconds(1);

// Wraps the real sink and makes each line printable. A formatter could not do this, because not
// every sink formats (the journal's takes the bare message).
class GuardedSink : public spdlog::sinks::sink {
 public:
  explicit GuardedSink(spdlog::sink_ptr below) : below_(std::move(below)) {}

  void log(const spdlog::details::log_msg& message) override {
    if (discards_) {
      ++lost_;
      return;
    }
    write(message);
  }
  // Writes the message even after discard().
  void write(const spdlog::details::log_msg& message) {
    const std::string shown =
        printable(std::string_view(message.payload.data(), message.payload.size()));
    spdlog::details::log_msg copy = message;
    copy.payload = shown;
    try {
      below_->log(copy);
    } catch (const std::exception&) {  // the journal's sink reports an error by an exception
      ++lost_;
    }
    // The sink for standard error reports no error, but its stream does.
    if (std::ferror(stderr) == 0) return;
    std::clearerr(stderr);
    ++lost_;
  }
  void flush() override { below_->flush(); }
  void set_pattern(const std::string& pattern) override { below_->set_pattern(pattern); }
  void set_formatter(std::unique_ptr<spdlog::formatter> formatter) override {
    below_->set_formatter(std::move(formatter));
  }

  // Discards all later messages and counts them as lost.
  void discard() { discards_ = true; }
  [[nodiscard]] std::uint64_t lost() const { return lost_; }

 private:
  spdlog::sink_ptr below_;
  std::atomic<bool> discards_ = false;
  std::atomic<std::uint64_t> lost_ = 0;
};

// These objects outlive finish_log(), because a thread that hung in a file system may still log.
std::shared_ptr<GuardedSink> the_sink;
std::atomic<std::uint64_t> overrun = 0;  // the overrun counter of the ended queue

bool logs_to_journal() {
  const char* stream = std::getenv("JOURNAL_STREAM");
  struct stat info {};
  if (stream == nullptr || fstat(STDERR_FILENO, &info) != 0) return false;
  return std::to_string(info.st_dev) + ":" + std::to_string(info.st_ino) == stream;
}

// Lets the queue's thread write the waiting lines and end, then writes `last`.
void drain(const std::vector<std::string>& last) {
  auto& registry = spdlog::details::registry::instance();
  overrun = registry.get_tp()->overrun_counter();
  registry.set_tp(nullptr);
  the_sink->discard();
  for (const std::string& line : last) {
    the_sink->write({"latchkeyd", spdlog::level::critical, line});
  }
}

}  // namespace

void start_log(const std::string& level) {
  spdlog::init_thread_pool(kLogLines, 1);
  spdlog::sink_ptr sink;
  if (logs_to_journal()) {
    sink = std::make_shared<spdlog::sinks::systemd_sink_mt>("latchkeyd");
  } else {
    // The sink without colours: colours would split a line into several writes.
    sink = std::make_shared<spdlog::sinks::stderr_sink_mt>();
  }
  the_sink = std::make_shared<GuardedSink>(sink);
  const auto log = std::make_shared<spdlog::async_logger>(
      "latchkeyd", the_sink, spdlog::thread_pool(), spdlog::async_overflow_policy::overrun_oldest);
  log->set_pattern("%Y-%m-%dT%H:%M:%S.%eZ %l: %v", spdlog::pattern_time_type::utc);
  log->set_level(spdlog::level::from_str(level));
  log->flush_on(spdlog::level::trace);
  // Ignores the error for a line that arrives after the queue has ended.
  log->set_error_handler([](const std::string&) {});
  spdlog::set_default_logger(log);
}

std::uint64_t log_lines_dropped() {
  if (the_sink == nullptr) return 0;
  const auto queue = spdlog::thread_pool();
  return the_sink->lost() + (queue == nullptr ? overrun.load() : queue->overrun_counter());
}

void finish_log(int exit_code, const std::vector<std::string>& last) {
  if (the_sink == nullptr) return;
  std::promise<void> written;
  try {
    std::thread([&] {
      drain(last);
      written.set_value();
    }).detach();
  } catch (const std::system_error&) {
    return drain(last);  // no thread could be started
  }
  auto done = written.get_future();
  if (done.wait_for(kLogPatience) == std::future_status::ready) return;
  the_sink->discard();
  if (done.wait_for(kLogPatience) == std::future_status::ready) return;
  std::_Exit(exit_code);
}

void write_to_stderr(const std::string& text) {
  using std::chrono::steady_clock;
  const auto deadline = steady_clock::now() + kLogPatience;
  std::string_view rest = text;
  while (!rest.empty()) {
    const auto left =
        std::chrono::duration_cast<std::chrono::milliseconds>(deadline - steady_clock::now());
    pollfd poller{STDERR_FILENO, POLLOUT, 0};
    if (left.count() <= 0 || poll(&poller, 1, static_cast<int>(left.count())) == 0) return;
    // After poll(2) reports POLLOUT, a write of at most PIPE_BUF bytes does not block (pipe(7)).
    const ssize_t count =
        write(STDERR_FILENO, rest.data(), std::min<std::size_t>(rest.size(), PIPE_BUF));
    if (count < 0 && errno != EINTR && errno != EAGAIN) return;
    if (count > 0) rest.remove_prefix(static_cast<std::size_t>(count));
  }
}

}  // namespace latchkey
