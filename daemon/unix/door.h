// The server's interface to the binary protocol (PROTOCOL.md) on Unix sockets.
#pragma once

#include "daemon/server/connection.h"

namespace latchkey {

[[nodiscard]] DoorKind unix_door();

}  // namespace latchkey
