// The same as client.c for the C++ interface, which has no pipelining of its own.
#include <cstdio>
#include <cstdlib>
#include <iostream>

#include "latchkey/client.hpp"

int main(int argc, char** argv) {
  using Clock = std::chrono::steady_clock;
  if (argc != 3) return 2;
  std::vector<std::string> keys;
  for (std::string key; std::getline(std::cin, key);) keys.push_back(key);
  const std::vector<std::string_view> views(keys.begin(), keys.end());
  const std::string mode = argv[1];
  const auto started = Clock::now();
  const auto until = started + std::chrono::duration<double>(std::atof(argv[2]));
  latchkey::Client client;
  std::size_t answers = 0;
  while (Clock::now() < until) {
    if (mode == "one") {
      if (!client.verify(views[answers++ % views.size()])) return 1;
      continue;
    }
    const auto at = views.begin() + static_cast<std::ptrdiff_t>(answers % (views.size() - 64));
    for (const auto& answer : client.verify(std::vector(at, at + 64))) {
      if (!answer) return 1;
      ++answers;
    }
  }
  const std::chrono::duration<double> took = Clock::now() - started;
  std::printf("{\"answers\":%zu,\"seconds\":%.6f}\n", answers, took.count());
}
