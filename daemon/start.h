// The start: reads secrets and waits for the first loads, before the daemon answers callers.
#pragma once

#include <array>
#include <chrono>
#include <csignal>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "config/options.h"
#include "daemon/assembly.h"
#include "loader/finding.h"
#include "loader/postgres/loader.h"

namespace latchkey {

// Signals that request an orderly end. They stay blocked until their handler is installed.
constexpr std::array kEnds = {SIGTERM, SIGINT, SIGQUIT};
[[nodiscard]] bool is_pending(std::span<const int> signals);

// Reads the secrets on another thread (Aside), within `start_timeout`. Returns null if a signal
// requests the end meanwhile. Rethrows the exceptions of reading; throws std::runtime_error if
// reading takes too long.
[[nodiscard]] std::shared_ptr<const Secrets> read_secrets(const Options& options);

// Waits for the first loads. Returns the problems, for people; empty if everything is loaded.
// Problems that may pass (a database that is still starting) are tolerated for `patience`; a
// running load may take any time. Calls `waiting` repeatedly meanwhile.
[[nodiscard]] std::vector<Finding> wait_loaded(const std::vector<std::unique_ptr<Loader>>& loaders,
                                               std::chrono::nanoseconds patience,
                                               bool first_attempt_only,
                                               const std::function<bool()>& interrupted,
                                               const std::function<void()>& waiting);

}  // namespace latchkey
