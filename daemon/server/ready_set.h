// What a worker waits for (epoll(7)): the sockets of its callers, and whatever else wakes it.
//
// A socket is registered once, edge-triggered: the kernel reports each change once, and a request
// costs no system call beside recv and send. The connection remembers what it has not acted on yet
// (Connection::notice()). Level-triggered, the kernel would check and report every waiting
// connection again for each collect(): a flood on a thousand connections would delay the discovery
// of all others. See docs/decisions/0012-one-wait-for-all-connections.md.
#pragma once

#include <cstddef>

#include "base/descriptor.h"

namespace latchkey {

class Connection;

// The changes of a socket since they were last reported.
struct Readiness {
  bool readable = false;  // bytes have arrived, or the caller has closed its half
  bool ended = false;     // the caller sends nothing more: after its bytes comes the end
  bool writable = false;  // only after await_writable()
};

class ReadySet {
 public:
  // Throws std::system_error.
  ReadySet();

  // Reports this connection's socket until the socket is closed. A socket that is readable already
  // is reported at once. False: the kernel has no memory for it. The connection must live until the
  // collect() after its socket was closed has returned.
  [[nodiscard]] bool add(Connection& connection) const;
  // Reports once that the socket of a registered connection is writable. False: as above.
  [[nodiscard]] bool await_writable(Connection& connection) const;
  // Reports another descriptor as Collected::other each time it becomes readable. Throws
  // std::system_error.
  void watch(int descriptor) const;

  struct Collected {
    std::size_t connections = 0;  // whose notice() was called
    bool other = false;           // a watched descriptor has become readable
  };
  // Waits for a change if `may_sleep`, then calls notice() of all connections whose
  // sockets have changed, at most kChangesMax; those beyond come first in the next call.
  Collected collect(bool may_sleep) const;
  static constexpr std::size_t kChangesMax = 256;

 private:
  Descriptor epoll_;
};

}  // namespace latchkey
