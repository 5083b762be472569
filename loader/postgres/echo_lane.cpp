#include "loader/postgres/echo_lane.h"

#include <utility>

#include "loader/postgres/session_setup.h"

namespace latchkey {

EchoLane::EchoLane(const PgTarget& target, const PgHost& host, std::int64_t now_ns)
    : connection_(target, host), deadline_ns_(now_ns + connect_timeout_ns(target.conninfo)) {}

void EchoLane::advance(std::int64_t now_ns) {
  connection_.advance();
  if (connection_.connected() && !std::exchange(asked_, true)) {
    deadline_ns_ = now_ns + kStepDeadline;
    connection_.send(session_settings(false), {.copy_data = {}, .rows = {}, .done = [this] {
                                                 prepared_ = true;
                                                 deadline_ns_ = kNoDeadline;
                                               }});
  }
  if (now_ns > deadline_ns_) throw PgError("the database gave no answer in time");
}

// No deadline here: the heartbeat has its own.
void EchoLane::send(const std::string& channel, const std::string& nonce,
                    std::function<void(const PgQueryError&)> refused) {
  connection_.send(notify_sql(), {channel, nonce},
                   {.copy_data = {}, .rows = {}, .done = {}, .refused = std::move(refused)});
}

}  // namespace latchkey
