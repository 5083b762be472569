#include "daemon/observe/process_facts.h"

#include <sys/resource.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <system_error>

namespace latchkey {
namespace {

template <typename Integer>
double number(Integer value) {
  return static_cast<double>(value);
}

}  // namespace

ProcessFacts read_process_facts() {
  ProcessFacts facts;
  double pages = 0;
  std::ifstream statm("/proc/self/statm");
  statm >> pages >> pages;
  facts.resident_bytes = pages * number(sysconf(_SC_PAGESIZE));
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  for (const timeval& time : {usage.ru_utime, usage.ru_stime}) {
    facts.cpu_seconds += number(time.tv_sec) + number(time.tv_usec) / 1e6;
  }
  rlimit limit{};
  getrlimit(RLIMIT_NOFILE, &limit);
  facts.max_fds = number(limit.rlim_cur);
  std::error_code error;
  for (auto it = std::filesystem::directory_iterator("/proc/self/fd", error);
       !error && it != std::filesystem::directory_iterator(); it.increment(error)) {
    ++facts.open_fds;
  }
  return facts;
}

}  // namespace latchkey
