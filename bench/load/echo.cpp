#include "bench/load/echo.h"

#include <sched.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstdint>
#include <cstring>
#include <memory>
#include <stdexcept>
#include <system_error>
#include <unordered_map>
#include <vector>

namespace latchkey {
namespace {

constexpr std::size_t kAsked = 64, kTold = 32, kBuffer = std::size_t{64} << 10;

struct Caller {
  std::size_t filled = 0;
  std::array<std::uint8_t, kBuffer> in{};
};

[[noreturn]] void fail(const char* what) {
  throw std::system_error(errno, std::generic_category(), what);
}

// Returns false if the caller has closed the connection.
bool answer(int fd, Caller& caller, std::vector<std::uint8_t>& out) {
  const ssize_t count =
      recv(fd, caller.in.data() + caller.filled, caller.in.size() - caller.filled, MSG_DONTWAIT);
  if (count < 0) return errno == EAGAIN || errno == EINTR;
  if (count == 0) return false;
  caller.filled += static_cast<std::size_t>(count);
  const std::size_t requests = caller.filled / kAsked;
  out.resize(requests * kTold);
  for (std::size_t i = 0; i < requests; ++i) {
    std::memcpy(out.data() + i * kTold, caller.in.data() + i * kAsked, kTold);
  }
  caller.filled -= requests * kAsked;
  std::memmove(caller.in.data(), caller.in.data() + requests * kAsked, caller.filled);
  // Only for callers that read their replies: at most 32 KiB, which fit into the socket's buffer.
  return out.empty() ||
         send(fd, out.data(), out.size(), MSG_NOSIGNAL) == static_cast<ssize_t>(out.size());
}

}  // namespace

void serve_echo(const EchoSettings& settings) {
  if (settings.processor >= 0) {
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(static_cast<unsigned>(settings.processor), &set);
    if (sched_setaffinity(0, sizeof set, &set) != 0) fail("sched_setaffinity");
  }
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  sigprocmask(SIG_BLOCK, &signals, nullptr);
  const int stop = signalfd(-1, &signals, SFD_CLOEXEC);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (settings.socket.size() >= sizeof address.sun_path)
    throw std::runtime_error("too long a path");
  settings.socket.copy(address.sun_path, settings.socket.size());
  const int listening = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (bind(listening, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0 ||
      listen(listening, SOMAXCONN) != 0) {
    fail("bind");
  }
  const int epoll = epoll_create1(EPOLL_CLOEXEC);
  const auto add = [&](int fd) {
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.fd = fd;
    epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
  };
  add(stop);
  add(listening);
  std::unordered_map<int, std::unique_ptr<Caller>> callers;
  std::vector<std::uint8_t> out;
  for (bool running = true; running;) {
    std::array<epoll_event, 64> events{};
    const int count = epoll_wait(epoll, events.data(), events.size(), settings.spin ? 0 : -1);
    for (int i = 0; i < count; ++i) {
      const int fd = events[static_cast<std::size_t>(i)].data.fd;
      if (fd == stop) {
        running = false;
      } else if (fd == listening) {
        const int caller = accept4(listening, nullptr, nullptr, SOCK_CLOEXEC);
        if (caller < 0) continue;
        callers[caller] = std::make_unique<Caller>();
        add(caller);
      } else if (!answer(fd, *callers[fd], out)) {
        close(fd);
        callers.erase(fd);
      }
    }
  }
  unlink(settings.socket.c_str());
}

}  // namespace latchkey
