#include "daemon/server/ready_set.h"

#include <sys/epoll.h>

#include <array>
#include <cerrno>
#include <cstdint>
#include <span>
#include <system_error>

#include "base/clock.h"
#include "daemon/server/connection.h"

namespace latchkey {
namespace {

// EPOLLHUP and EPOLLERR are always reported.
constexpr std::uint32_t kRead = EPOLLIN | EPOLLRDHUP | EPOLLET;

bool control(int epoll, int operation, std::uint32_t events, Connection& connection) {
  epoll_event event{};
  event.events = events;
  event.data.ptr = &connection;
  return epoll_ctl(epoll, operation, connection.socket(), &event) == 0;
}

}  // namespace

ReadySet::ReadySet() : epoll_(epoll_create1(EPOLL_CLOEXEC)) {
  if (!epoll_) throw std::system_error(errno, std::generic_category(), "epoll_create1");
}

bool ReadySet::add(Connection& connection) const {
  return control(epoll_.get(), EPOLL_CTL_ADD, kRead, connection);
}

bool ReadySet::await_writable(Connection& connection) const {
  return control(epoll_.get(), EPOLL_CTL_MOD, kRead | EPOLLOUT, connection);
}

void ReadySet::watch(int descriptor) const {
  epoll_event event{};
  event.events = EPOLLIN | EPOLLET;
  event.data.ptr = nullptr;
  if (epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, descriptor, &event) != 0) {
    throw std::system_error(errno, std::generic_category(), "epoll_ctl");
  }
}

ReadySet::Collected ReadySet::collect(bool may_sleep) const {
  std::array<epoll_event, kChangesMax> events;
  const int count = epoll_wait(epoll_.get(), events.data(), events.size(), may_sleep ? -1 : 0);
  Collected collected;
  if (count <= 0) return collected;
  const std::int64_t now_ns = boot_ns();
  for (const epoll_event& event : std::span(events).first(static_cast<std::size_t>(count))) {
    if (event.data.ptr == nullptr) {
      collected.other = true;
      continue;
    }
    auto& connection = *static_cast<Connection*>(event.data.ptr);
    const bool broken = (event.events & (EPOLLHUP | EPOLLERR)) != 0;
    const bool writable = (event.events & EPOLLOUT) != 0;
    // Otherwise each reply that the caller reads would be reported. A failure here costs only that.
    if (writable) (void)control(epoll_.get(), EPOLL_CTL_MOD, kRead, connection);
    connection.notice({.readable = broken || (event.events & (EPOLLIN | EPOLLRDHUP)) != 0,
                       .ended = broken || (event.events & EPOLLRDHUP) != 0,
                       .writable = broken || writable},
                      now_ns);
    ++collected.connections;
  }
  return collected;
}

}  // namespace latchkey
