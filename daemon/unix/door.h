// The binary protocol (PROTOCOL.md) on Unix sockets, as the server sees it.
#pragma once

#include "daemon/server/connection.h"

namespace latchkey {

[[nodiscard]] DoorKind unix_door();

}  // namespace latchkey
