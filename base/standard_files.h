// What a program does first of all: see that descriptors 0, 1 and 2 are taken.
#pragma once

#include <fcntl.h>
#include <unistd.h>

#include <initializer_list>

namespace latchkey {

// Whoever starts a program may have closed them (`latchkey verify >&-`; close(2)). The next file
// that is opened would get the number, and what is printed, or logged, would go into a socket. Each
// that is missing is opened the wrong way round, so that to use it is an error (EBADF) as it was
// before.
inline void open_standard_files() {
  for (const int descriptor : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
    if (::fcntl(descriptor, F_GETFD) != -1) continue;
    // The lowest number that is free (open(2)): this one.
    (void)!::open("/dev/null", descriptor == STDIN_FILENO ? O_WRONLY : O_RDONLY);
  }
}

}  // namespace latchkey
