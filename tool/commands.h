// The commands of `latchkey`, one function each. Each returns the documented exit code.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <ostream>
#include <string>
#include <vector>

namespace latchkey {

constexpr int kExitAllActive = 0;
constexpr int kExitSomeInactive = 1;
constexpr int kExitUsage = 2;
constexpr int kExitNoAnswer = 3;

// An error in the command line or the input. `what` is for people.
struct UsageError {
  std::string what;
};

struct CommonSettings {
  std::string socket;
  bool json = false;
  std::chrono::milliseconds timeout = std::chrono::seconds(5);
};

struct VerifySettings {
  std::vector<std::string> scopes;
  std::vector<std::string> any_scopes;
  std::optional<std::string> source;
  std::optional<std::chrono::nanoseconds> max_age;
  bool metadata = false;
};

// Throws OutputError. On a pipe without a reader, SIGPIPE ends the program instead (signal(7)).
void flush(std::ostream& out);

// The output could not be written.
struct OutputError {};

constexpr std::chrono::milliseconds kTopIntervalMin{100}, kTopIntervalMax{60'000};

struct TopSettings {
  std::chrono::milliseconds interval{1000};
  std::uint64_t count = 0;  // number of reports, as text; 0: until stopped
  bool plain = false;       // text even on a terminal
};

struct MintSettings {
  std::string prefix;
  unsigned count = 1;
  std::string config;  // with `source`: gives its digest scheme and newest pepper
  std::string source;
};

struct SqlSettings {
  std::string action;  // install, uninstall, grant
  std::string config;
  std::string source;  // empty: all
};

int run_verify(const CommonSettings& common, const VerifySettings& verify);
int run_why(const CommonSettings& common, const VerifySettings& why);
int run_sync(const CommonSettings& common, std::chrono::milliseconds timeout);
int run_ping(const CommonSettings& common);
int run_status(const CommonSettings& common);
int run_reload(const CommonSettings& common, std::chrono::milliseconds patience);
int run_top(const CommonSettings& common, const TopSettings& top);
int run_mint(const CommonSettings& common, const MintSettings& mint);
int run_sql(const SqlSettings& sql);

}  // namespace latchkey
