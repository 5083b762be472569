// The protocols of a load: Latchkey's, or that of an alternative. Each peer encodes keys as
// requests and checks the replies; the generator handles connections, time and threads.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>

#include "bench/load/keys.h"
#include "protocol/codec.h"

namespace latchkey {

// A wrong answer; it ends the run. what() describes the expected and the received answer.
class WrongAnswer : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

class Peer {
 public:
  virtual ~Peer() = default;
  Peer() = default;
  Peer(const Peer&) = delete;
  Peer& operator=(const Peer&) = delete;

  // Performs the handshake on a new connection before the first request; blocking, with a deadline.
  // Throws std::runtime_error.
  virtual void greet(int socket) { (void)socket; }
  // Encodes one request for all of `keys`.
  virtual void encode(OutBuffer& out, std::span<const BenchKey> keys) = 0;
  // Checks the reply to the oldest open request, which is for `keys`. Returns the length of the
  // reply, or zero if `bytes` do not hold all of it yet. Throws WrongAnswer.
  virtual std::size_t judge(Bytes bytes, std::span<const BenchKey> keys) = 0;
  // The maximum number of keys in one request.
  [[nodiscard]] virtual std::size_t batch_max() const { return 1; }
};

struct PeerOptions {
  std::string name = "latchkey";  // echo, floor, redis, memcached, postgres
  bool claims = true;             // latchkey: ask for claims, and check the row's id
  bool generated = true;          // rows and values are those of generated keys
  std::string database = {};      // postgres: the database's name
  std::string user = {};
};

// Makes a peer; each connection needs its own. Throws std::runtime_error for an unknown name.
[[nodiscard]] std::unique_ptr<Peer> make_peer(const PeerOptions& options);

}  // namespace latchkey
