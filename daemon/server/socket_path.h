// A path in the file system to listen on: taken over from a crash, never from somebody else.
#pragma once

#include <sys/types.h>

#include <atomic>
#include <optional>
#include <string>

namespace latchkey {

// Holds a socket's path from claim to destruction, against any second instance.
class SocketPath {
 public:
  // Takes the path: a socket file that nobody listens on is left over from a crash and goes;
  // anything else is somebody else's and stays. `setting` names the path in messages. Throws
  // std::runtime_error for the operator.
  SocketPath(std::string path, std::string setting);
  // Another one may take it from here on. The socket's file, if it is there, is removed.
  ~SocketPath();
  SocketPath(const SocketPath&) = delete;
  SocketPath& operator=(const SocketPath&) = delete;

  // A listening socket at the path, which its caller closes. Nobody may connect before `mode` and
  // `group` are set.
  [[nodiscard]] int listen(mode_t mode, std::optional<gid_t> group);
  // Whoever connects from now on finds nobody. A file that is not the one made here stays.
  void remove();
  // Is the file that was made still there? Without it nobody finds us.
  [[nodiscard]] bool in_place() const;

 private:
  std::string path_;
  std::string setting_;
  int lock_fd_ = -1;
  std::atomic<bool> bound_{false};  // other threads ask while this one ends
  dev_t device_ = 0;
  ino_t inode_ = 0;
};

}  // namespace latchkey
