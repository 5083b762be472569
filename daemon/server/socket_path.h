// A path in the file system to listen on. A socket left over from a crash is replaced, a socket of
// another program never.
#pragma once

#include <sys/types.h>

#include <atomic>
#include <optional>
#include <string>

namespace latchkey {

// Locks a socket's path against a second instance, from construction to destruction.
class SocketPath {
 public:
  // Claims the path. A socket file without a listener is left over from a crash and is removed; any
  // other file stays, and is an error. `setting` names the path in messages. Throws
  // std::runtime_error for the operator.
  SocketPath(std::string path, std::string setting);
  // Removes the socket's file, if it is there, and releases the path for another instance.
  ~SocketPath();
  SocketPath(const SocketPath&) = delete;
  SocketPath& operator=(const SocketPath&) = delete;

  // Returns a listening socket at the path; the caller closes it. No other user can connect before
  // `mode` and `group` are set.
  [[nodiscard]] int listen(mode_t mode, std::optional<gid_t> group);
  // Removes the socket's file, so that later connects fail. A file that was not made here stays.
  void remove();
  // True if the file made here still exists. Without it no caller can connect.
  [[nodiscard]] bool in_place() const;

 private:
  std::string path_;
  std::string setting_;
  int lock_fd_ = -1;
  std::atomic<bool> bound_{false};  // other threads call in_place() during remove()
  dev_t device_ = 0;
  ino_t inode_ = 0;
};

}  // namespace latchkey
