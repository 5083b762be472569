// Ensures at program start that descriptors 0, 1 and 2 are open.
#pragma once

#include <fcntl.h>
#include <unistd.h>

#include <initializer_list>

namespace latchkey {

// The parent process may have closed some of them (`latchkey verify >&-`; close(2)). The next file
// or socket opened would then get the number and receive printed or logged text. Each missing
// descriptor is opened in the wrong direction, so that using it still fails with EBADF.
inline void open_standard_files() {
  for (const int descriptor : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
    if (::fcntl(descriptor, F_GETFD) != -1) continue;
    // open(2) returns the lowest free number, which is `descriptor`.
    (void)!::open("/dev/null", descriptor == STDIN_FILENO ? O_WRONLY : O_RDONLY);
  }
}

}  // namespace latchkey
