#include "loader/postgres/link.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <utility>
#include <variant>

#include "base/clock.h"
#include "loader/postgres/ids.h"
#include "loader/postgres/nonce.h"
#include "loader/postgres/queries.h"
#include "loader/postgres/queue_trouble.h"
#include "loader/postgres/session_setup.h"
#include "loader/postgres/triggers.h"

namespace latchkey {
namespace {

constexpr std::int64_t kMeetingDeadline = 5 * kSecond;
// Time limit for taking notifications before other tasks have their turn: floods of notifications
// must not occupy the loader's thread.
constexpr std::int64_t kTakeFor = 10'000'000;
// A streaming load is polled at this interval, not after every few kilobytes: waking this process
// costs the server more than sending a row does. The rows that arrive meanwhile fit into the
// socket's buffer.
constexpr std::int64_t kStreamPause = 200'000;

Handshake::Times times(const DatabaseConfig& config) {
  return {.connect_ns = connect_timeout_ns(config.target.conninfo),
          .step_ns = kStepDeadline,
          .meeting_ns = std::min(kMeetingDeadline, config.refresh.barrier_deadline_ns)};
}

}  // namespace

Link::Link(FollowedDatabase& database, const PgHost& server, std::int64_t now_ns)
    : database_(database),
      listening_(database, server),
      reading_(database, server),
      handshake_(times(database.config), now_ns),
      auditing_(database, listening_),
      heartbeat_(database, listening_, reading_, auditing_) {}

void Link::turn() {
  if (reading_.advance(boot_ns())) handshake_.read_connected();
  auditing_.turn(boot_ns(), heartbeat_.third() == nullptr);

  // The listening connection comes last, so that a heartbeat that arrived while a load kept this
  // thread busy does not count as late.
  if (listening_.advance()) handshake_.listen_connected();
  listening_.drain([this](std::string_view payload) { return awaits(payload); });
  take_notices();
  heartbeat_.turn_nonce();
  step_handshake(boot_ns());
  heartbeat_.turn_echo(boot_ns());
  check_deadlines(boot_ns());
}

void Link::step_handshake(std::int64_t now_ns) {
  for (;;) {
    switch (handshake_.next(now_ns, reading_.idle())) {
      case Handshake::Step::kWait: return;
      case Handshake::Step::kIdentify: reading_.identify([this] { handshake_.inspected(); }); break;
      case Handshake::Step::kListen: listening_.listen([this] { handshake_.listening(); }); break;
      case Handshake::Step::kAskProgress:
        reading_.ask_progress(listening_.connection().backend_pid(),
                              [this](bool works, double usage) { take_progress(works, usage); });
        break;
      case Handshake::Step::kMeet: meet(); break;
      case Handshake::Step::kPrepare:
        listening_.prepare_heartbeat([this] { handshake_.prepared(); });
        break;
      case Handshake::Step::kReady:
        database_.board.set_trouble("", false, now_ns);
        database_.refresh.listen_ready(now_ns);
        database_.refresh.work_ready(now_ns);
        break;
    }
  }
}

// A slow LISTEN has to pass notifications that another session has not read.
void Link::take_progress(bool works, double usage) {
  const std::int64_t now_ns = boot_ns();
  if (!handshake_.progress(works, usage, now_ns)) return;
  database_.board.set_trouble(
      fmt::format("LISTEN has to pass PostgreSQL's notification queue, which is {} full,"
                  " and is given the time.{}",
                  percent(usage), kWhoHoldsTheQueue),
      /*queue_in_the_way=*/true, now_ns);
}

void Link::meet() {
  meeting_ = random_hex(16);
  reading_.meet(listening_.channel(), meeting_, [this] {
    meeting_.clear();
    handshake_.meeting_refused(boot_ns());
    database_.board.set_trouble(std::string(kQueueIsFull) + kWhoHoldsTheQueue,
                                /*queue_in_the_way=*/true, boot_ns());
  });
}

// ---- notifications

bool Link::awaits(std::string_view payload) const {
  return heartbeat_.awaits(payload) || (!meeting_.empty() && payload == meeting_) ||
         auditing_.awaits(payload);
}

void Link::take_notices() {
  NoticeQueue& notices = listening_.notices();
  const std::int64_t until_ns = boot_ns() + kTakeFor;
  while (auto notice = notices.pop()) {
    if (const auto* own = std::get_if<NoticeQueue::Own>(&*notice)) {
      take_own(own->payload);
    } else if (const auto* change = std::get_if<NoticeQueue::Change>(&*notice)) {
      take_change(*change);
    } else {
      const std::size_t table = std::get<NoticeQueue::TooMany>(*notice).table;
      for (const std::size_t i : database_.sources_of[table]) take_too_many(i);
    }
    if (boot_ns() >= until_ns) break;
  }
}

void Link::take_own(std::string_view payload) {
  heartbeat_.heard(payload);
  if (!meeting_.empty() && payload == meeting_) {
    meeting_.clear();
    handshake_.met();
  }
  auditing_.heard(payload);
}

void Link::take_change(const NoticeQueue::Change& change) {
  const auto notice = ChangeNotice::parse(change.payload);
  if (!notice) {
    listening_.count_malformed();
    return;
  }
  for (const std::size_t i : database_.sources_of[change.table]) {
    if (notice->truncated && database_.sources[i]->facts.files_tell) {
      database_.refresh.doubted();  // the next barrier decides
    } else if (notice->truncated) {
      database_.refresh.notified_all(i);
    } else if (notice->reload) {
      take_too_many(i);
    } else {
      take_ids(i, notice->ids);
    }
  }
}

// Counts ids that no trigger would have sent. Either they are forged, or ids now have another type:
// then the next comparison of the tables detects it and causes a load. So no change is lost.
void Link::take_ids(std::size_t index, const std::vector<std::string>& named) {
  FollowedSource& source = *database_.sources[index];
  const SourceConfig& config = source.config();
  std::vector<std::string> ids;
  for (const std::string& told : named) {
    const std::string id(id_as_read(config, source.facts, told));
    if (id_may_not_convert(config, source.facts, id)) {
      database_.refresh.notified_all(index);
    } else if (is_notified_id(id) && is_id(config, source.facts, id)) {
      if (source.audit != nullptr) source.audit->told_of(id);
      ids.push_back(id);
    } else {
      ++source.status.malformed_ids;
      database_.refresh.doubted();
    }
  }
  if (ids.empty()) return;
  source.told(boot_ns());
  database_.refresh.notified(index, std::move(ids));
}

// More rows have changed than were named, or other ones.
void Link::take_too_many(std::size_t index) {
  if (Audit* audit = database_.sources[index]->audit) audit->told_of_many();
  database_.refresh.notified_many(index);
}

// ---- waiting

void Link::check_deadlines(std::int64_t now_ns) const {
  if (now_ns > handshake_.listen_deadline_ns()) {
    throw PgConnectError("the listening connection got no answer in time");
  }
  if (now_ns > std::min(handshake_.read_deadline_ns(), reading_.deadline_ns())) {
    throw PgError(reading_.step() + ": the database gave no answer in time");
  }
}

Link::Waits Link::waits(std::int64_t now_ns) const {
  Waits waits;
  waits.until_ns = std::min({handshake_.wake_ns(), reading_.deadline_ns(),
                             heartbeat_.wake_ns(now_ns), auditing_.deadline_ns()});
  if (!listening_.notices().empty()) waits.until_ns = now_ns;
  const auto watch = [&](const PgConnection* connection) {
    if (connection == nullptr) return;
    if (connection->more_to_do()) waits.until_ns = now_ns;
    if (connection->streaming()) {
      waits.until_ns = std::min(waits.until_ns, now_ns + kStreamPause);
    } else {
      waits.sockets.at(waits.count++) = {connection->socket(), connection->events(), 0};
    }
  };
  watch(&listening_.connection());
  watch(&reading_.connection());
  watch(auditing_.third() != nullptr ? auditing_.third() : heartbeat_.third());
  return waits;
}

}  // namespace latchkey
