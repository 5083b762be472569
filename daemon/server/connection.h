// What the server asks of a connection and of those who make one, whatever is spoken on it; and
// what it offers them. A door (daemon/unix) knows a protocol and nothing of threads, turns and
// quotas; the server knows these and no protocol.
#pragma once

#include <boost/asio/local/stream_protocol.hpp>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>

#include "config/options.h"
#include "daemon/server/admission.h"
#include "daemon/server/context.h"
#include "latchkey/wire.h"
#include "verify/rights.h"

namespace latchkey {

// Belongs to its worker's thread.
class Connection : public std::enable_shared_from_this<Connection> {
 public:
  using Socket = boost::asio::local::stream_protocol::socket;

  virtual ~Connection() = default;
  virtual void start() = 0;
  // Reads what has arrived, and answers some of it.
  virtual void turn() = 0;
  // Says why not, and closes.
  virtual void refuse(latchkey_error code) = 0;
  // Answers what has arrived, then closes.
  virtual void drain() = 0;
  // The rules have changed: whoever is not allowed any more is closed.
  virtual void apply(const CallerRules& rules) = 0;
  virtual void close() = 0;
  // Ends it if it has outstayed one of its deadlines. `idle_ns`: how long one may stay that asks
  // for nothing.
  virtual void check_deadline(std::int64_t now_ns, std::int64_t idle_ns) = 0;
  // Whose quotas it draws on.
  [[nodiscard]] virtual const CallerId& id() const = 0;
};

// What connections need of their worker.
class ConnectionHost {
 public:
  virtual ~ConnectionHost() = default;
  virtual const WorkerContext& context() = 0;
  virtual const LimitOptions& limits() = 0;
  virtual Admission& admission() = 0;
  // The connection has something to answer: its turn() comes, at once or after others'. `again`: it
  // had one just now.
  virtual void ready(Connection& connection, bool again) = 0;
  // Its caller was told of so many keys that they are unknown.
  virtual void asked_in_vain(const CallerId& id, std::uint64_t keys) = 0;
  // Calls `done` once, on this worker's thread: true if everything committed before is in force.
  virtual void sync(SourceMask sources, std::chrono::milliseconds timeout,
                    std::function<void(bool)> done) = 0;
  virtual void closed(Connection& connection) = 0;
};

// One for each worker, and of its thread.
class Door {
 public:
  virtual ~Door() = default;
  // `id` is whose quotas it draws on until it is closed, whatever a reload makes of the rules.
  [[nodiscard]] virtual std::shared_ptr<Connection> open(Connection::Socket socket,
                                                         ConnectionHost& host, const Peer& peer,
                                                         const CallerId& id,
                                                         const Rights& rights) = 0;
};

struct DoorKind {
  std::function<std::unique_ptr<Door>()> make;
  // Tells a caller why it is not admitted, without waiting: into the socket's buffer, or not at
  // all.
  void (*tell)(int socket, latchkey_error code);
};

}  // namespace latchkey
