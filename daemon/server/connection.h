// The interfaces between the server and the connections of any protocol. A door (daemon/unix)
// implements a protocol and knows no threads, turns or quotas; the server implements these and
// knows no protocol.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>

#include "base/descriptor.h"
#include "config/options.h"
#include "daemon/server/admission.h"
#include "daemon/server/context.h"
#include "daemon/server/ready_set.h"
#include "latchkey/wire.h"
#include "verify/rights.h"

namespace latchkey {

// Used only on its worker's thread.
class Connection : public std::enable_shared_from_this<Connection> {
 public:
  virtual ~Connection() = default;
  virtual void start() = 0;
  // Its socket has changed. Each change is told once; `now_ns` is boot_ns().
  virtual void notice(const Readiness& change, std::int64_t now_ns) = 0;
  // Reads the bytes that have arrived, and takes some of the requests; Door::answer() sends the
  // replies. Returns the work of that, in the unit of WorkerContext::turn_work.
  [[nodiscard]] virtual std::size_t turn() = 0;
  // Sends the error and closes.
  virtual void refuse(latchkey_error code) = 0;
  // Answers the requests that have arrived, then closes.
  virtual void drain() = 0;
  // Applies changed rules; closes the connection if its caller is not allowed any more.
  virtual void apply(const CallerRules& rules) = 0;
  virtual void close() = 0;
  // Closes the connection if one of its deadlines has passed. `idle_ns` is the limit for
  // connections without a request.
  virtual void check_deadline(std::int64_t now_ns, std::int64_t idle_ns) = 0;
  [[nodiscard]] virtual int socket() const = 0;
  // The caller whose quotas the connection draws on.
  [[nodiscard]] virtual const CallerId& id() const = 0;
};

// The services of a worker for its connections.
class ConnectionHost {
 public:
  virtual ~ConnectionHost() = default;
  virtual const WorkerContext& context() = 0;
  virtual const LimitOptions& limits() = 0;
  virtual Admission& admission() = 0;
  // The connection has something to do: the worker calls its turn(), after those of others.
  virtual void ready(Connection& connection) = 0;
  // The socket did not take all bytes: the worker calls notice() when it takes more.
  virtual void await_writable(Connection& connection) = 0;
  // Counts `keys` that were answered as unknown to this caller.
  virtual void asked_in_vain(const CallerId& id, std::uint64_t keys) = 0;
  // Calls `done` once, on this worker's thread: true if all changes committed before are in force.
  virtual void sync(SourceMask sources, std::chrono::milliseconds timeout,
                    std::function<void(bool)> done) = 0;
  virtual void closed(Connection& connection) = 0;
};

// Opens connections. Each worker has its own, used only on its thread.
class Door {
 public:
  virtual ~Door() = default;
  // The connection draws on the quotas of `id` until it is closed, even if a reload changes the
  // rules.
  [[nodiscard]] virtual std::shared_ptr<Connection> open(Descriptor socket, ConnectionHost& host,
                                                         const Peer& peer, const CallerId& id,
                                                         const Rights& rights) = 0;
  // Answers, as one batch, the requests that connections have taken in their turns since the last
  // call, and sends the replies.
  virtual void answer(const WorkerContext& context) = 0;
};

struct DoorKind {
  std::function<std::unique_ptr<Door>()> make;
  // Sends the reason of a refusal without waiting: into the socket's buffer, or not at all.
  void (*tell)(int socket, latchkey_error code);
};

}  // namespace latchkey
