// The start: what has to be there before callers are answered.
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

// Ask for an orderly end. They are blocked until they are handled.
constexpr std::array kEnds = {SIGTERM, SIGINT, SIGQUIT};
[[nodiscard]] bool is_pending(std::span<const int> signals);

// Reads them aside, within `start_timeout`. Null: somebody wants an end before they are read.
// Throws what reading throws, and std::runtime_error if it takes too long.
[[nodiscard]] std::shared_ptr<const Secrets> read_secrets(const Options& options);

// What is wrong, for people; empty if everything is loaded. Trouble that may pass (a database that
// is still starting) is given `patience`; a load under way is given its time. `waiting` is called
// now and then.
[[nodiscard]] std::vector<LintFinding> wait_loaded(
    const std::vector<std::unique_ptr<Loader>>& loaders, std::chrono::nanoseconds patience,
    bool first_attempt_only, const std::function<bool()>& interrupted,
    const std::function<void()>& waiting);

}  // namespace latchkey
