#include "loader/postgres/listening.h"

#include <cassert>
#include <utility>

#include "base/clock.h"
#include "loader/postgres/nonce.h"
#include "loader/postgres/session_setup.h"
#include "loader/postgres/text_converter.h"
#include "loader/postgres/triggers.h"
#include "loader/postgres/version.h"

namespace latchkey {
namespace {

// Any session can notify with bytes that cannot be converted. PostgreSQL would fail to convert them
// for us, and end the connection (PostgreSQL manual, "Character Set Support").
constexpr const char* kBytesAsTheyAre = "SET client_encoding = 'SQL_ASCII';";
constexpr const char* kHeartbeat = "latchkey_heartbeat";  // the prepared statement
// Time limit for emptying the socket before other work has its turn: floods of notifications must
// not occupy the loader's thread.
constexpr std::int64_t kDrainFor = 10'000'000;

}  // namespace

Listening::Listening(FollowedDatabase& database, const PgHost& server)
    : database_(database),
      connection_(database.config.target, server),
      channel_("latchkey_heartbeat_" + random_hex(8)),
      notices_(database.tables) {}

bool Listening::advance() {
  connection_.advance();
  return connection_.connected() && !std::exchange(connected_, true);
}

void Listening::listen(std::function<void()> done) {
  connection_.send(std::string("LISTEN ") + kChangeChannel + ";LISTEN " + channel_ + ";" +
                       session_settings(false) + heartbeat_settings() + kBytesAsTheyAre,
                   {.copy_data = {}, .rows = {}, .done = std::move(done)});
}

// Planning the query costs PostgreSQL ten times as much as the answer, and by default it plans the
// first five executions anew: half a second or more each on a busy machine with many sources, just
// after a reconnect.
void Listening::prepare_heartbeat(std::function<void()> done) {
  if (connection_.server_encoding() == "UTF8") return prepare(std::move(done));
  // The query names tables, in UTF-8.
  connection_.send("SET client_encoding = 'UTF8'",
                   {.copy_data = {}, .rows = {}, .done = [this, done = std::move(done)] {
                      prepare([this, done] {
                        connection_.send(kBytesAsTheyAre,
                                         {.copy_data = {}, .rows = {}, .done = done});
                      });
                    }});
}

void Listening::prepare(std::function<void()> done) {
  connection_.prepare(kHeartbeat, heartbeat_sql(database_.configs(), database_.side_rights),
                      {.copy_data = {}, .rows = {}, .done = std::move(done)});
}

void Listening::ask(std::function<void(const PgRows&)> answer, std::function<void()> done) {
  assert(connection_.idle());
  connection_.execute(kHeartbeat, {},
                      {.copy_data = {},
                       .rows = std::move(answer),
                       .done = std::move(done),
                       .what = "the heartbeat"});
}

void Listening::drain(const std::function<bool(std::string_view)>& awaited) {
  const std::int64_t until_ns = boot_ns() + kDrainFor;
  for (;;) {
    bool heard = false;
    while (const auto notification = connection_.next_notification()) {
      heard = true;
      hear(*notification, awaited);
    }
    // Parse the received data before reading more: libpq doubles a full buffer.
    if (!heard || boot_ns() >= until_ns) break;
    connection_.advance();
  }
}

void Listening::hear(const PgNotification& notification,
                     const std::function<bool(std::string_view)>& awaited) {
  const std::string_view payload = notification.payload;
  if (notification.channel == channel_) {
    if (awaited(payload)) notices_.push_own(payload);
    return;
  }
  database_.board.update([](LoaderStatus& status) { ++status.notifications; });
  const bool readable = is_ascii(payload) || connection_.server_encoding() == "UTF8";
  const NoticeQueue::Pushed pushed =
      readable ? notices_.push_change(payload) : notices_.push_unreadable(payload);
  // The payload is not from one of our triggers. A table that is no source is not malformed.
  if (pushed == NoticeQueue::Pushed::kMalformed) count_malformed();
}

void Listening::count_malformed() {
  database_.board.update([](LoaderStatus& status) { ++status.malformed_notifications; });
}

}  // namespace latchkey
