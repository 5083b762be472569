#include "bench/load/bare_server.h"

#include <sched.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <memory>
#include <stdexcept>
#include <string_view>
#include <system_error>
#include <unordered_map>

#include "base/descriptor.h"
#include "bench/flat_table.h"
#include "bench/load/keys.h"
#include "keys/digest.h"

namespace latchkey {
namespace {

constexpr std::size_t kRequestBytes = 64, kEchoedBytes = 32;
constexpr std::size_t kBuffer = std::size_t{64} << 10;

struct Caller {
  explicit Caller(int fd) : socket(fd) {}

  Descriptor socket;
  std::size_t filled = 0;
  std::array<std::uint8_t, kBuffer> in{};
};

[[noreturn]] void fail(const char* what) {
  throw std::system_error(errno, std::generic_category(), what);
}

void run_on(int processor) {
  if (processor < 0) return;
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(static_cast<unsigned>(processor), &set);
  if (sched_setaffinity(0, sizeof set, &set) != 0) fail("sched_setaffinity");
}

Descriptor listen_at(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path) throw std::runtime_error("too long a path");
  path.copy(address.sun_path, path.size());
  Descriptor listening(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (bind(listening.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0 ||
      listen(listening.get(), SOMAXCONN) != 0) {
    fail("bind");
  }
  return listening;
}

Descriptor stop_signals() {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  sigprocmask(SIG_BLOCK, &signals, nullptr);
  return Descriptor(signalfd(-1, &signals, SFD_CLOEXEC));
}

// Returns false if the caller has closed the connection. `answer` appends the replies to whole
// requests.
template <typename Answer>
bool answer_one(Caller& caller, OutBuffer& out, const Answer& answer) {
  const int fd = caller.socket.get();
  const ssize_t count =
      recv(fd, caller.in.data() + caller.filled, caller.in.size() - caller.filled, MSG_DONTWAIT);
  if (count < 0) return errno == EAGAIN;
  if (count == 0) return false;
  caller.filled += static_cast<std::size_t>(count);
  const std::size_t whole = caller.filled - caller.filled % kRequestBytes;
  out.clear();
  answer(std::span(caller.in).first(whole), out);
  caller.filled -= whole;
  std::memmove(caller.in.data(), caller.in.data() + whole, caller.filled);
  // Only for callers that read their replies: at most 64 KiB, which fit into the socket's buffer.
  return out.size() == 0 ||
         send(fd, out.data(), out.size(), MSG_NOSIGNAL) == static_cast<ssize_t>(out.size());
}

template <typename Answer>
void serve(const BareSettings& settings, const Answer& answer) {
  run_on(settings.processor);
  const Descriptor stop = stop_signals(), listening = listen_at(settings.socket);
  const Descriptor epoll(epoll_create1(EPOLL_CLOEXEC));
  const auto add = [&](int fd) {
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.fd = fd;
    epoll_ctl(epoll.get(), EPOLL_CTL_ADD, fd, &event);
  };
  add(stop.get());
  add(listening.get());
  std::unordered_map<int, std::unique_ptr<Caller>> callers;
  OutBuffer out;
  for (bool running = true; running;) {
    std::array<epoll_event, 64> events{};
    const int count = epoll_wait(epoll.get(), events.data(), events.size(), settings.spin ? 0 : -1);
    for (int i = 0; i < count; ++i) {
      const int fd = events[static_cast<std::size_t>(i)].data.fd;
      if (fd == stop.get()) {
        running = false;
      } else if (fd == listening.get()) {
        const int caller = accept4(fd, nullptr, nullptr, SOCK_CLOEXEC);
        if (caller < 0) continue;
        callers[caller] = std::make_unique<Caller>(caller);
        add(caller);
      } else if (!answer_one(*callers[fd], out, answer)) {
        callers.erase(fd);
      }
    }
  }
  unlink(settings.socket.c_str());
}

// Digests and looks up as many keys together as the daemon does.
void answer_floor(const bench::FlatTable& table, std::span<const std::uint8_t> in, OutBuffer& out) {
  constexpr std::size_t kBatch = KeyMap::kBatchMax;
  std::array<std::uint64_t, kBatch> ids;
  std::array<std::string_view, kBatch> texts;
  std::array<Digest, kBatch> digests;
  std::array<const Digest*, kBatch> found;
  while (!in.empty()) {
    const std::size_t count = std::min(kBatch, in.size() / kRequestBytes);
    for (std::size_t i = 0; i < count; ++i) {
      const std::uint8_t* at = in.data() + i * kRequestBytes;
      std::memcpy(&ids[i], at, sizeof ids[i]);
      const auto* key = reinterpret_cast<const char*>(at + offsetof(FloorRequest, key));
      texts[i] = {key, std::min<std::size_t>(at[offsetof(FloorRequest, length)],
                                             sizeof(FloorRequest::key))};
    }
    sha256(std::span(texts).first(count), digests);
    table.find(std::span<const Digest>(digests).first(count), std::span<const Digest*>(found));
    std::uint8_t* reply = out.grow(count * sizeof(FloorReply));
    for (std::size_t i = 0; i < count; ++i) {
      const FloorReply told{ids[i], static_cast<std::uint8_t>(found[i] != nullptr), {}};
      std::memcpy(reply + i * sizeof told, &told, sizeof told);
    }
    in = in.subspan(count * kRequestBytes);
  }
}

}  // namespace

void serve_echo(const BareSettings& settings) {
  serve(settings, [](std::span<const std::uint8_t> in, OutBuffer& out) {
    const std::size_t requests = in.size() / kRequestBytes;
    std::uint8_t* reply = out.grow(requests * kEchoedBytes);
    for (std::size_t i = 0; i < requests; ++i) {
      std::memcpy(reply + i * kEchoedBytes, in.data() + i * kRequestBytes, kEchoedBytes);
    }
  });
}

void serve_floor(const BareSettings& settings, std::uint64_t keys) {
  bench::FlatTable table(keys);
  for (std::uint64_t i = 0; i < keys; ++i) table.add(sha256(generated_key(i)));
  serve(settings,
        [&](std::span<const std::uint8_t> in, OutBuffer& out) { answer_floor(table, in, out); });
}

}  // namespace latchkey
