// What a load speaks: Latchkey's protocol, or that of what one would use instead. Each peer turns
// keys into requests and replies into judgements; connections, time and threads are the
// generator's.
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

// An answer that is not what it had to be: ends the run. what() says which, and what came.
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

  // Whatever must be said on a new connection before the first request; blocking, with a deadline.
  // Throws std::runtime_error.
  virtual void greet(int socket) { (void)socket; }
  // One request for all of `keys`.
  virtual void encode(OutBuffer& out, std::span<const BenchKey> keys) = 0;
  // The reply to the oldest request that has none, for `keys`, if `bytes` hold all of it: its
  // length; zero if more is to come. Throws WrongAnswer.
  virtual std::size_t judge(Bytes bytes, std::span<const BenchKey> keys) = 0;
  // Keys that one request can carry.
  [[nodiscard]] virtual std::size_t batch_max() const { return 1; }
};

struct PeerOptions {
  std::string name = "latchkey";  // echo, redis, memcached, postgres
  bool claims = true;             // latchkey: ask for them, and check the row's id
  bool generated = true;          // rows and values are those of generated keys
  std::string database = {};      // postgres: name of it
  std::string user = {};
};

// One for each connection. Throws std::runtime_error for a name that is none.
[[nodiscard]] std::unique_ptr<Peer> make_peer(const PeerOptions& options);

}  // namespace latchkey
