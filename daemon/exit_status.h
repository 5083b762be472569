// With what latchkeyd ends, if not with 0.
#pragma once

namespace latchkey {

constexpr int kExitFailure = 1;        // the world is not as the configuration says
constexpr int kExitConfiguration = 2;  // the configuration or the command line is wrong

}  // namespace latchkey
