// The exit statuses of latchkeyd other than 0.
#pragma once

namespace latchkey {

constexpr int kExitFailure = 1;        // the environment does not match the configuration
constexpr int kExitConfiguration = 2;  // the configuration or the command line is wrong

}  // namespace latchkey
