// reload: asks latchkeyd to read its configuration again, and reports the result. It is for
// systemd's ExecReload=, which would otherwise succeed even if the reload failed.

#include <poll.h>
#include <signal.h>

#include <cerrno>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <iostream>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <system_error>
#include <vector>

#include "base/printable.h"
#include "tool/commands.h"
#include "tool/connection.h"

namespace latchkey {
namespace {

using nlohmann::ordered_json;

constexpr int kPollMs = 20;
// latchkeyd makes a status at most every 100 ms: a status requested after that time counts every
// reload that has ended.
constexpr int kStatusAgeMs = 120;

// The reloads so far: their number, whether one is under way, the error of the last one, and the
// changed settings that it did not apply.
struct Outcome {
  std::uint64_t count = 0;
  bool under_way = false;
  std::string error;
  std::vector<std::string> need_restart;
};

// nullopt: the status does not report reloads.
std::optional<Outcome> outcome_of(const ordered_json& status) {
  const auto reloads = status.find("reloads");
  if (reloads == status.end()) return std::nullopt;
  return Outcome{
      reloads->value("succeeded", std::uint64_t{0}) + reloads->value("failed", std::uint64_t{0}),
      reloads->value("under_way", false), reloads->value("last_error", ""),
      reloads->value("need_restart", std::vector<std::string>())};
}

// The pid from the service manager ($MAINPID, systemd.exec(5)), or from the status. It may be a
// number of another container, so this also checks that it is a latchkeyd here.
pid_t daemon_pid(const ordered_json& status) {
  const char* told = std::getenv("MAINPID");
  const pid_t pid =
      told != nullptr ? static_cast<pid_t>(std::strtol(told, nullptr, 10)) : status.value("pid", 0);
  if (told == nullptr && pid == 0) {
    throw NoAnswer(
        "latchkeyd does not tell this user which process it is: the [[allow]] rule that"
        " names it permits a part of the status only. systemd tells (MAINPID), else set"
        " that, or send SIGHUP yourself");
  }
  std::string name;
  std::getline(std::ifstream("/proc/" + std::to_string(pid) + "/comm"), name);
  if (pid < 1 || name != "latchkeyd") {  // in a container it may be 1
    throw NoAnswer("process " + std::to_string(pid) +
                   " is no latchkeyd of this host (or container): nothing was asked");
  }
  return pid;
}

// Waits for a status that is `wanted`. Throws NoAnswer if there is none before `deadline`.
Outcome wait_outcome(Connection& connection, std::chrono::steady_clock::time_point deadline,
                     const std::function<bool(const Outcome&)>& wanted) {
  for (;;) {
    const auto now = outcome_of(connection.status());
    if (now && wanted(*now)) return *now;
    if (std::chrono::steady_clock::now() >= deadline) {
      throw NoAnswer("latchkeyd has not reloaded in time; its log may say why");
    }
    poll(nullptr, 0, kPollMs);
  }
}

}  // namespace

int run_reload(const CommonSettings& common, std::chrono::milliseconds patience) {
  const auto deadline = std::chrono::steady_clock::now() + patience;
  Connection connection(common.socket, common.timeout);
  (void)connection.status();
  poll(nullptr, 0, kStatusAgeMs);
  const ordered_json before = connection.status();
  const pid_t pid = daemon_pid(before);
  const bool told = outcome_of(before).has_value();
  std::uint64_t count = 0;
  if (told) {
    count =
        wait_outcome(connection, deadline, [](const Outcome& now) { return !now.under_way; }).count;
  }
  if (kill(pid, SIGHUP) != 0) {
    throw NoAnswer("cannot signal process " + std::to_string(pid) + ": " +
                   std::generic_category().message(errno));
  }
  if (!told) {
    throw NoAnswer(
        "latchkeyd was asked to reload, but does not tell this user how that goes: the"
        " [[allow]] rule that names it permits a part of the status only. See its log");
  }
  const Outcome now = wait_outcome(connection, deadline, [count](const Outcome& outcome) {
    return outcome.count != count && !outcome.under_way;
  });
  if (common.json) {
    ordered_json json = {{"reloaded", now.error.empty()}};
    if (!now.error.empty()) json["error"] = now.error;
    if (!now.need_restart.empty()) json["need_restart"] = now.need_restart;
    std::cout << json << '\n';
  } else if (now.error.empty()) {
    std::cout << "Reloaded.\n";
    for (const std::string& setting : now.need_restart) {
      std::cout << "Not " << printable(setting) << ", which has changed: that needs a restart.\n";
    }
  }
  if (now.error.empty()) return kExitAllActive;
  std::cerr << "latchkey: the reload failed, everything stays as it was: " << now.error << '\n';
  return kExitSomeInactive;
}

}  // namespace latchkey
