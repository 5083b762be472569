// The lower bound for a server of this kind: a bare epoll loop that returns the first 32 of each 64
// bytes, and does nothing else.
#pragma once

#include <string>

namespace latchkey {

struct EchoSettings {
  std::string socket;
  bool spin = false;  // never sleeps: polls the kernel continuously
  int processor = -1;
};

// Serves until SIGTERM or SIGINT. Throws std::runtime_error.
void serve_echo(const EchoSettings& settings);

}  // namespace latchkey
