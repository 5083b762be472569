#include "daemon/server/socket_path.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <stdexcept>
#include <string_view>
#include <system_error>
#include <utility>

namespace latchkey {
namespace {

std::string error_text(int error) { return std::generic_category().message(error); }

sockaddr_un address_of(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  path.copy(address.sun_path, sizeof address.sun_path - 1);
  return address;
}

int unix_socket() {
  const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) throw std::system_error(errno, std::generic_category(), "socket");
  return fd;
}

// Returns zero, or the errno of connect(). Does not wait: a full backlog (EAGAIN) also shows that a
// program listens.
int try_connect(const std::string& path) {
  const sockaddr_un address = address_of(path);
  const int probe = unix_socket();
  const int result =
      connect(probe, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0 ? 0 : errno;
  close(probe);
  return result;
}

constexpr std::string_view kRootsFolder = "/run/latchkey/";

std::string advice(const std::string& path, const std::string& setting) {
  if (!path.starts_with(kRootsFolder) || geteuid() == 0) {
    return " Does the folder exist, and may this user write there?";
  }
  // latchkeyd.service and latchkeyd.socket.
  return " /run/latchkey is root's: there only root can make a socket, as latchkeyd.socket does"
         " (systemctl start latchkeyd.socket). Start that one, or set `" +
         setting + "` to a path in /run/latchkeyd, or in another folder of this user's.";
}

}  // namespace

SocketPath::SocketPath(std::string path, std::string setting)
    : path_(std::move(path)), setting_(std::move(setting)) {
  const std::string lock = path_ + ".lock";
  lock_fd_ = open(lock.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (lock_fd_ < 0) {
    throw std::runtime_error("cannot create " + lock + " for `" + setting_ +
                             "`: " + error_text(errno) + "." + advice(path_, setting_));
  }
  try {
    if (flock(lock_fd_, LOCK_EX | LOCK_NB) != 0) {
      throw std::runtime_error("another latchkeyd serves " + path_ +
                               ". Stop it first, or set another `" + setting_ + "`.");
    }
    struct stat info {};
    if (lstat(path_.c_str(), &info) != 0) return;
    if (!S_ISSOCK(info.st_mode)) {
      throw std::runtime_error(
          path_ + " exists and is not a socket. Move it away, or set another `" + setting_ + "`.");
    }
    if (try_connect(path_) != ECONNREFUSED) {
      throw std::runtime_error("some other program listens on " + path_ +
                               ". Stop it first, or set another `" + setting_ + "`.");
    }
    unlink(path_.c_str());
  } catch (...) {
    close(lock_fd_);
    throw;
  }
}

SocketPath::~SocketPath() {
  remove();
  close(lock_fd_);
}

int SocketPath::listen(mode_t mode, std::optional<gid_t> group) {
  const int fd = unix_socket();
  try {
    const sockaddr_un address = address_of(path_);
    // umask sets the mode of the file that bind() creates: only this user has access until chmod().
    const mode_t old_mask = umask(0177);
    const bool done = bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0;
    const int error = errno;
    umask(old_mask);
    if (!done) {
      throw std::runtime_error("cannot listen on " + path_ + ": " + error_text(error) + "." +
                               advice(path_, setting_));
    }
    bound_ = true;
    struct stat made {};
    if (lstat(path_.c_str(), &made) != 0) {
      throw std::runtime_error("cannot find " + path_ + ", just made: " + error_text(errno) + ".");
    }
    device_ = made.st_dev;
    inode_ = made.st_ino;
    if (group && chown(path_.c_str(), static_cast<uid_t>(-1), *group) != 0) {
      throw std::runtime_error(
          "cannot give " + path_ + " to the `group` of the configuration: " + error_text(errno) +
          ". The daemon's user must be a member (systemd: SupplementaryGroups=).");
    }
    if (chmod(path_.c_str(), mode) != 0 || ::listen(fd, SOMAXCONN) != 0) {
      throw std::runtime_error("cannot listen on " + path_ + ": " + error_text(errno) + ".");
    }
  } catch (...) {
    close(fd);
    throw;
  }
  return fd;
}

bool SocketPath::in_place() const {
  struct stat there {};
  return bound_ && lstat(path_.c_str(), &there) == 0 && there.st_dev == device_ &&
         there.st_ino == inode_;
}

// The lock protects the path, but not its folder. The folder may have been emptied or replaced, and
// a successor may listen there by now, so only the file made here is removed.
void SocketPath::remove() {
  if (in_place()) unlink(path_.c_str());
  bound_ = false;
}

}  // namespace latchkey
