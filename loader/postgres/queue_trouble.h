// Texts for the operator about a full notification queue of PostgreSQL.
#pragma once

#include <spdlog/fmt/fmt.h>

#include <string>

namespace latchkey {

constexpr const char* kQueueFull = "54000";  // program_limit_exceeded, on NOTIFY
constexpr const char* kQueueIsFull =
    "PostgreSQL's notification queue is full, so nothing that notifies can commit: no change of"
    " keys, nor our heartbeat.";
// Usage above which the queue is reported as a trouble.
constexpr double kQueueUsageWarning = 0.5;

// The remedy for a full queue. Our role may not see other roles' sessions, so the text cannot name
// the session.
constexpr const char* kWhoHoldsTheQueue =
    " A session that has executed LISTEN and stays in one transaction keeps PostgreSQL from"
    " emptying it. As a superuser, SELECT pid, usename, application_name, xact_start FROM"
    " pg_stat_activity WHERE state <> 'idle' ORDER BY xact_start; the oldest is the likeliest. End"
    " it with pg_terminate_backend(pid).";

[[nodiscard]] inline std::string percent(double usage) {
  return fmt::format("{:.1f} %", usage * 100);
}

}  // namespace latchkey
