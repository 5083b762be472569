#include "bench/load/processes.h"

#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <system_error>
#include <type_traits>
#include <utility>
#include <vector>

#include "base/descriptor.h"
#include "bench/load/peer.h"

namespace latchkey {
namespace {

[[noreturn]] void fail(const char* what) {
  throw std::system_error(errno, std::generic_category(), what);
}

// ---- messages between the parent and its children: plain memory, because all run one program

void write_bytes(int fd, const void* data, std::size_t size) {
  const auto* at = static_cast<const char*>(data);
  while (size > 0) {
    const ssize_t count = send(fd, at, size, MSG_NOSIGNAL);
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) fail("send");
    at += count;
    size -= static_cast<std::size_t>(count);
  }
}

void read_bytes(int fd, void* data, std::size_t size) {
  auto* at = static_cast<char*>(data);
  while (size > 0) {
    const ssize_t count = recv(fd, at, size, 0);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) fail("recv");
    if (count == 0) throw std::runtime_error("a process of the load ended early");
    at += count;
    size -= static_cast<std::size_t>(count);
  }
}

template <typename Value>
void write_value(int fd, const Value& value) {
  static_assert(std::is_trivially_copyable_v<Value>);
  write_bytes(fd, &value, sizeof value);
}

template <typename Value>
Value read_value(int fd) {
  static_assert(std::is_trivially_copyable_v<Value>);
  Value value{};
  read_bytes(fd, &value, sizeof value);
  return value;
}

enum class Message : std::uint8_t { kReady, kResult, kWrongAnswer, kFailure };

void write_result(int fd, const LoadResult& result) {
  write_value(fd, Message::kResult);
  write_value(fd, result.seconds);
  write_value(fd, result.requests);
  write_value(fd, result.keys);
  write_value(fd, result.not_sent);
  write_value(fd, result.intervals.size());
  for (const Interval& interval : result.intervals) write_value(fd, interval);
}

void merge_result(int fd, LoadResult& total) {
  total.seconds = read_value<double>(fd);
  total.requests += read_value<std::uint64_t>(fd);
  total.keys += read_value<std::uint64_t>(fd);
  total.not_sent += read_value<std::uint64_t>(fd);
  const auto intervals = read_value<std::size_t>(fd);
  if (total.intervals.size() < intervals) total.intervals.resize(intervals);
  for (std::size_t i = 0; i < intervals; ++i) {
    const auto part = read_value<Interval>(fd);
    Interval& interval = total.intervals[i];
    interval.begin_s = part.begin_s;
    interval.requests += part.requests;
    interval.latencies.merge(part.latencies);
    total.latencies.merge(part.latencies);
  }
}

void write_failure(int fd, Message kind, const std::string& what) {
  write_value(fd, kind);
  write_value(fd, what.size());
  write_bytes(fd, what.data(), what.size());
}

// Reads up to `wanted`. Throws what a child reports instead.
void expect(int fd, Message wanted) {
  const auto kind = read_value<Message>(fd);
  if (kind == wanted) return;
  std::string what(read_value<std::size_t>(fd), '\0');
  read_bytes(fd, what.data(), what.size());
  if (kind == Message::kWrongAnswer) throw WrongAnswer(what);
  throw std::runtime_error(what);
}

// ---- processes

// Kills the child at the end if it is still there: nobody reads its result then.
class Child {
 public:
  template <typename Work>
  explicit Child(const Work& work) {
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) fail("socketpair");
    parent_end_ = Descriptor(ends[0]);
    Descriptor child_end(ends[1]);
    pid_ = fork();
    if (pid_ < 0) fail("fork");
    if (pid_ > 0) return;
    parent_end_.close();
    work(child_end.get());
    _exit(0);
  }
  ~Child() {
    if (pid_ <= 0) return;
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
  }
  Child(Child&& other) noexcept
      : parent_end_(std::move(other.parent_end_)), pid_(std::exchange(other.pid_, -1)) {}
  Child& operator=(Child&&) = delete;

  [[nodiscard]] int socket() const { return parent_end_.get(); }

 private:
  Descriptor parent_end_;
  pid_t pid_ = -1;
};

LoadSettings share_of(const LoadSettings& settings, unsigned number) {
  LoadSettings share = settings;
  share.processes = 1;
  share.connections = settings.connections / settings.processes +
                      (number < settings.connections % settings.processes ? 1 : 0);
  share.threads = std::min(settings.threads, share.connections);
  share.rate = settings.rate * share.connections / settings.connections;
  share.choice.seed = settings.choice.seed + number;
  // Threads of the next process run on the next processors.
  if (!share.processors.empty()) {
    const std::size_t first = std::size_t{number} * share.threads % share.processors.size();
    std::ranges::rotate(share.processors,
                        share.processors.begin() + static_cast<std::ptrdiff_t>(first));
  }
  return share;
}

void run_child(int parent, LoadSettings settings, const KeyTable& keys) {
  settings.agree_on_begin = [parent] {
    write_value(parent, Message::kReady);
    return read_value<std::int64_t>(parent);
  };
  try {
    write_result(parent, run_load(settings, keys, nullptr));
  } catch (const WrongAnswer& error) {
    write_failure(parent, Message::kWrongAnswer, error.what());
  } catch (const std::exception& error) {
    write_failure(parent, Message::kFailure, error.what());
  }
}

}  // namespace

LoadResult run_processes(const LoadSettings& settings, const KeyTable& keys,
                         const std::function<void(const Interval&)>& progress) {
  if (settings.processes <= 1) return run_load(settings, keys, progress);
  std::vector<Child> children;
  for (unsigned i = 0; i < settings.processes; ++i) {
    children.emplace_back([&](int parent) { run_child(parent, share_of(settings, i), keys); });
  }
  for (const Child& child : children) expect(child.socket(), Message::kReady);
  const std::int64_t begin_ns = begin_after(settings.warm_up);
  for (const Child& child : children) write_value(child.socket(), begin_ns);
  LoadResult total;
  for (const Child& child : children) {
    expect(child.socket(), Message::kResult);
    merge_result(child.socket(), total);
  }
  return total;
}

}  // namespace latchkey
