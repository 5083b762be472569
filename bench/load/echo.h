// The floor beneath any server of this kind: a bare epoll loop that sends the first 32 of each 64
// bytes back, and does nothing else.
#pragma once

#include <string>

namespace latchkey {

struct EchoSettings {
  std::string socket;
  bool spin = false;  // never sleeps: asks the kernel again and again
  int processor = -1;
};

// Serves until SIGTERM or SIGINT. Throws std::runtime_error.
void serve_echo(const EchoSettings& settings);

}  // namespace latchkey
