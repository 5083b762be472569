#include "daemon/process.h"

#include <spdlog/spdlog.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>
#include <csignal>
#include <cstdlib>
#include <exception>
#include <new>
#include <string_view>

#include "daemon/exit_status.h"

namespace latchkey {

void keep_memory_private() {
  const rlimit none{0, 0};
  setrlimit(RLIMIT_CORE, &none);
  prctl(PR_SET_DUMPABLE, 0);
}

void lock_memory() {
  // MCL_ONFAULT locks each page when it is first touched.
  rlimit limit{};
  getrlimit(RLIMIT_MEMLOCK, &limit);
  // If a limit applied, later loads would fail once the keys exceed it.
  const bool permitted = limit.rlim_cur == RLIM_INFINITY || geteuid() == 0;
  if (permitted && mlockall(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT) == 0) return;
  spdlog::info(
      "memory is not locked, so digests of keys may be written to swap. To lock it, set"
      " LimitMEMLOCK=infinity in the service (or `ulimit -l unlimited`); to accept it without this"
      " line, set lock = false in [memory].");
}

void ignore_stray_signals() {
  for (const int signal : {SIGPIPE, SIGUSR1, SIGUSR2, SIGALRM, SIGVTALRM, SIGPROF, SIGIO}) {
    std::signal(signal, SIG_IGN);
  }
}

void say_why_it_ends() {
  try {
    if (const auto error = std::current_exception()) std::rethrow_exception(error);
  } catch (const std::bad_alloc&) {
    constexpr std::string_view kWhy =
        "latchkeyd: not enough memory for the keys, so it ends: no change may be left half done."
        " A load takes about 150 bytes a key, and as much again for those that have changed. Give"
        " latchkeyd more (systemd: MemoryMax=), or the host.\n";
    (void)!write(STDERR_FILENO, kWhy.data(), kWhy.size());
    _exit(kExitFailure);
  } catch (...) {  // a defect: the library's own handler names it, below
  }
  __gnu_cxx::__verbose_terminate_handler();
  std::abort();
}

}  // namespace latchkey
