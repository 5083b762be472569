#include "daemon/unix/door.h"

#include <sys/socket.h>

#include <utility>

#include "base/wire_names.h"
#include "daemon/unix/connection.h"
#include "protocol/codec.h"

namespace latchkey {
namespace {

class UnixDoor : public Door {
 public:
  std::shared_ptr<Connection> open(Descriptor socket, ConnectionHost& host, const Peer& peer,
                                   const CallerId& id, const Rights& rights) override {
    return std::make_shared<UnixConnection>(std::move(socket), host, round_, peer, id, rights);
  }
  void answer(const WorkerContext& context) override { round_.answer(context); }

 private:
  Round round_;
};

void tell(int socket, latchkey_error code) {
  OutBuffer out;
  encode_error(out, 0, code, error_sentence(code));
  (void)send(socket, out.data(), out.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
}

}  // namespace

DoorKind unix_door() {
  return {.make = [] { return std::make_unique<UnixDoor>(); }, .tell = tell};
}

}  // namespace latchkey
