#include "loader/postgres/reading.h"

#include <algorithm>
#include <string_view>
#include <utility>

#include "base/clock.h"
#include "base/encoding.h"
#include "base/printable.h"
#include "loader/postgres/answers.h"
#include "loader/postgres/identity_alarm.h"
#include "loader/postgres/ids.h"
#include "loader/postgres/problems.h"
#include "loader/postgres/queries.h"
#include "loader/postgres/queue_trouble.h"
#include "loader/postgres/text_converter.h"
#include "loader/postgres/version.h"

namespace latchkey {
namespace {

constexpr std::int64_t kLoadSilence = 30 * kSecond;
// A query counts as overtaken by an ALTER TABLE at most kRaces - 1 times in a row. The next refusal
// is handled as any other: code that the table runs, or a broken value, may raise the same SQLSTATE
// for ever, and the operator must learn of it.
constexpr int kRaces = 3;
// feature_not_supported: the result types of a cached plan have changed.
constexpr std::string_view kPlanOutdated = "0A000";
constexpr std::size_t kGrown = 1000;    // a growth up to this many rows does not affect a plan
constexpr const char* kOutdated = "?";  // replaces the text of an outdated prepared query

// The name of the prepared re-read query of one source.
std::string reread_name(std::size_t index) { return "latchkey_reread_" + std::to_string(index); }

// The text of a catalogue answer sent as bytea (PostgreSQL manual, "bytea Hex Format").
std::string catalogue_text(std::string_view hex, std::string_view encoding) {
  const auto bytes = hex.starts_with("\\x") ? decode_hex(hex.substr(2)) : std::nullopt;
  if (!bytes) throw PgError("the look-up of the table cannot be read");
  return TextConverter(encoding).to_utf8_or_marks(*bytes);
}

bool has(const OddityCounts& counts, Oddity oddity) {
  return counts.at(static_cast<std::size_t>(oddity)) > 0;
}

}  // namespace

Reading::Reading(FollowedDatabase& database, const PgHost& server)
    : database_(database),
      connection_(database.config.target, server),
      step_("connecting to " + server.display()) {}

bool Reading::advance(std::int64_t now_ns) {
  try {
    connection_.advance();
  } catch (const PgQueryError& error) {
    throw PgQueryError(step_ + ": " + error.what());
  }
  // Slow rows extend the deadline as long as they arrive.
  if (connection_.take_heard() && database_.board.ready() && deadline_ns_ != kNoDeadline) {
    deadline_ns_ = std::max(deadline_ns_, now_ns + kStepDeadline);
  }
  return connection_.connected() && !std::exchange(connected_, true);
}

// ---- steps of the handshake

void Reading::identify(std::function<void()> done) {
  session_owner_.begin();
  forget_prepared();
  step_ = "asking the server who it is";
  // Once the daemon serves, each load looks up its own table, so that a problem of one table
  // affects no other.
  const auto identified = [this, done = std::move(done)] {
    database_.board.ready() ? done() : inspect(0, done);
  };
  const auto ask = [this, identified] {
    connection_.send(identity_sql(database_.side_rights),
                     {.copy_data = {},
                      .rows = [this](const PgRows& rows) { take_identity(database_, rows); },
                      .done = identified,
                      .what = "the question who it is"});
  };
  connection_.send(session_settings(false),
                   {.copy_data = {}, .rows = {}, .done = [this, ask] {
                      connection_.send(side_rights_sql(),
                                       {.copy_data = {},
                                        .rows =
                                            [this](const PgRows& rows) {
                                              database_.side_rights = read_side_rights(rows);
                                            },
                                        .done = ask,
                                        .what = "the question what it may be asked"});
                    }});
}

// Looks up every source in the catalogue, one after another.
void Reading::inspect(std::size_t index, std::function<void()> done) {
  if (index == database_.sources.size()) {
    check_problems();
    done();
    return;
  }
  const SourceConfig& config = database_.sources[index]->config();
  step_ = "`time_zone` of source \"" + config.name + "\", \"" + printable(config.time_zone) +
          "\", must be one that PostgreSQL knows, such as \"UTC\" or \"Europe/Oslo\"";
  const auto look_up = [this, index, done = std::move(done)] {
    look_up_table(index, [this, index, done] { inspect(index + 1, done); });
  };
  connection_.send(time_zone_sql(config), {.copy_data = {}, .rows = {}, .done = look_up});
}

// Aborts the start if a table cannot be served.
void Reading::check_problems() const {
  std::vector<Finding> found;
  for (const auto& source : database_.sources) {
    for (Finding& problem : problems(source->config(), source->facts)) {
      problem.text = "source \"" + source->name() + "\": " + problem.text;
      found.push_back(std::move(problem));
    }
  }
  if (found.empty()) return;
  const std::string first = found.front().numbered();
  database_.board.set_unready({std::move(found), /*final=*/true});
  throw PgError(first);
}

void Reading::ask_progress(int backend_pid, std::function<void(bool, double)> answer) {
  connection_.send(listen_progress_sql(database_.side_rights), {std::to_string(backend_pid)},
                   {.copy_data = {},
                    .rows =
                        [answer = std::move(answer)](const PgRows& rows) {
                          rows.expect_columns(2);
                          const auto usage = rows.field(0, 1);
                          answer(rows.value(0, 0) == "true", usage ? number_or_fail(*usage) : 1.0);
                        },
                    .done = {},
                    // Without an answer LISTEN has the time limit of any other step.
                    .refused = [](const PgQueryError&) {},
                    .what = "the question how far LISTEN is"});
}

void Reading::meet(const std::string& channel, const std::string& nonce,
                   std::function<void()> queue_full) {
  step_ =
      "a notification sent by the reading connection was not heard by the listening one, as each"
      " heartbeat has to be. Both must reach the same server, and keep it: point `conninfo` at the"
      " server itself, or at a pooler in session mode, not at a load balancer or a pooler in"
      " transaction or statement mode";
  connection_.send(notify_sql(), {channel, nonce},
                   {.copy_data = {},
                    .rows = {},
                    .done = {},
                    .refused = [queue_full = std::move(queue_full)](const PgQueryError& error) {
                      if (error.sqlstate() != kQueueFull) throw error;
                      queue_full();
                    }});
}

// ---- the catalogue

// Reads the table's present catalogue entries, then calls `done`.
void Reading::look_up_table(std::size_t index, std::function<void()> done) {
  FollowedSource& source = *database_.sources[index];
  step_ = "looking up the table of source \"" + source.name() + "\"";
  const std::string encoding = connection_.server_encoding();
  const bool as_stored = is_read_as_stored(encoding);
  connection_.send(inspect_sql(source.config(), database_.configs(),
                               database_.side_rights.subscriptions, as_stored),
                   {.copy_data = {},
                    .rows =
                        [&source, encoding, as_stored](const PgRows& rows) {
                          std::string text(rows.value(0, 0));
                          if (as_stored) text = catalogue_text(text, encoding);
                          read_answer("the look-up of the table",
                                      [&] { source.facts = TableFacts::from_json(text); });
                          source.version_reloaded.reset();  // its return must cause a load
                        },
                    .done = std::move(done),
                    .refused = refusal_handler(index),
                    .what = "the look-up of the table"});
}

// ---- loads

// Each load looks up its table first, and so detects a trigger that was dropped while the daemon
// ran.
void Reading::load(std::size_t index, LoadReason reason) {
  if (echoing_) {
    after_echo_ = [this, index, reason] { load(index, reason); };
    return;
  }
  database_.sources[index]->load_reason = reason;
  deadline_ns_ = boot_ns() + kStepDeadline;
  look_up_table(index, [this, index] { looked_up(index); });
}

void Reading::looked_up(std::size_t index) {
  FollowedSource& source = *database_.sources[index];
  std::vector<Finding> found = problems(source.config(), source.facts);
  if (!found.empty() && !database_.board.ready()) throw PgError(found.front().numbered());
  // Without its triggers a table can still be read: then the map is as old as the last load.
  if (!std::ranges::all_of(found, [](const Finding& f) { return is_about_triggers(f.lint); })) {
    suspend(index, std::move(found));
    return;
  }
  source.status.polled = !found.empty();
  source.report_problems(
      std::move(found),
      "until this is mended the whole table is read again and again, and its answers are as old as"
      " the last reading",
      boot_ns());
  source.make_pipeline();
  serve_owner(source, [this, index] { copy(index); });
}

void Reading::copy(std::size_t index) {
  FollowedSource& source = *database_.sources[index];
  step_ = "loading source \"" + source.name() + "\"";
  const Now now = read_clocks();
  source.begin_load(now.boot_ns, now.real_us);
  deadline_ns_ = now.boot_ns + kLoadSilence;
  connection_.send(load_sql(source.config(), source.facts),
                   {.copy_data =
                        [this, &source](std::span<const std::string_view> messages) {
                          deadline_ns_ = boot_ns() + kLoadSilence;
                          source.take(messages);
                        },
                    .rows = {},
                    .done = [this, index] { load_done(index); },
                    .refused = refusal_handler(index),
                    .what = "the load of a table"});
}

void Reading::load_done(std::size_t index) {
  FollowedSource& source = *database_.sources[index];
  source.finish_load(step_);
  const std::int64_t now_ns = boot_ns();
  source.report_load(now_ns, database_.side_rights);
  hold_uses(source, has(source.status.oddities, Oddity::kUseTimeUnit));
  deadline_ns_ = kNoDeadline;
  if (source.comparison_begins()) database_.compare_sources(index);
  database_.publish_status(now_ns);  // before wait_ready() returns, so that findings are seen
  if (!source.status.polled) {
    database_.refresh.work_done(now_ns);
    return;
  }
  // Changes that committed before the table was read are in force; later ones are not notified.
  source.prove(source.load_since_ns(), now_ns, database_.config.bound_ns);
  database_.refresh.work_refused(now_ns);
}

// Last uses are not written to a table if its column does not count seconds.
void Reading::hold_uses(const FollowedSource& source, bool unit_is_wrong) {
  if (source.last_used) database_.last_used.hold(*source.last_used, unit_is_wrong);
}

// ---- rows read by id

void Reading::reread(std::size_t index, std::vector<std::string> ids) {
  if (echoing_) {
    after_echo_ = [this, index, ids = std::move(ids)] { reread(index, ids); };
    return;
  }
  FollowedSource& source = *database_.sources[index];
  source.asked();
  step_ = "reading changed rows of source \"" + source.name() + "\"";
  source.status.rereads += ids.size();
  deadline_ns_ = boot_ns() + kStepDeadline;
  serve_owner(source, [this, index, ids = std::move(ids)] { read_rows(index, ids); });
}

// Planning the re-read takes PostgreSQL longer than all other work for one changed row, so the
// session keeps the plan while the query stays the same. The plan is renewed once the table has
// doubled: a plan made for an empty table reads all of it, until an ANALYZE.
void Reading::read_rows(std::size_t index, const std::vector<std::string>& ids) {
  FollowedSource& source = *database_.sources[index];
  const std::string sql = reread_sql(source.config(), source.facts);
  const bool fits = source.writer().rows() <= kGrown + 2 * source.prepared_rows;
  if (source.prepared == sql && fits) return read_prepared(index, ids);
  const auto prepare = [this, index, sql, ids] { prepare_rows(index, sql, ids); };
  if (source.prepared.empty()) return prepare();
  source.prepared.clear();
  // The table's owner may have deallocated it meanwhile; the refusal does not matter then.
  connection_.send("DEALLOCATE " + reread_name(index),
                   {.copy_data = {},
                    .rows = {},
                    .done = prepare,
                    .refused = [prepare](const PgQueryError&) { prepare(); },
                    .what = "the forgetting of a question"});
}

void Reading::prepare_rows(std::size_t index, const std::string& sql,
                           const std::vector<std::string>& ids) {
  connection_.prepare(reread_name(index), sql,
                      {.copy_data = {},
                       .rows = {},
                       .done =
                           [this, index, ids, sql] {
                             FollowedSource& source = *database_.sources[index];
                             source.prepared = sql;
                             source.prepared_rows = source.writer().rows();
                             read_prepared(index, ids);
                           },
                       .refused = refusal_handler(index),
                       .what = "the preparation of reading changed rows"});
}

void Reading::read_prepared(std::size_t index, const std::vector<std::string>& ids) {
  FollowedSource& source = *database_.sources[index];
  connection_.execute(reread_name(index), {array_literal(ids)},
                      {.copy_data = {},
                       .rows =
                           [this, &source, ids](const PgRows& rows) {
                             const OddityCounts odd = source.apply(rows, ids, boot_ns());
                             if (has(odd, Oddity::kUseTimeUnit)) hold_uses(source, true);
                           },
                       .done = [this, &source, index] { rows_read(source, index); },
                       .refused =
                           [this, &source, index](const PgQueryError& error) {
                             source.prepared = kOutdated;
                             refusal_handler(index)(error);
                           },
                       .what = "the reading of changed rows"});
}

void Reading::rows_read(FollowedSource& source, std::size_t index) {
  const std::int64_t now_ns = boot_ns();
  source.answered(now_ns);
  deadline_ns_ = kNoDeadline;
  if (std::exchange(source.overtaken, false)) {
    overtaken(index);
  } else {
    database_.refresh.work_done(now_ns);
  }
}

// ---- the session

// Resets the session if it has read another owner's table, then calls `done`.
void Reading::serve_owner(const FollowedSource& source, const std::function<void()>& done) {
  const auto before = session_owner_.before(source.name(), source.facts);
  if (std::ranges::find(before, kDiscardAll) != before.end()) forget_prepared();
  send_each(before, 0, done);
}

// The session is new, so it has no prepared statements.
void Reading::forget_prepared() {
  for (const auto& source : database_.sources) source->prepared.clear();
}

void Reading::send_each(const std::vector<std::string>& statements, std::size_t from,
                        const std::function<void()>& done) {
  if (from == statements.size()) {
    done();
    return;
  }
  connection_.send(statements[from],
                   {.copy_data = {}, .rows = {}, .done = [this, statements, from, done] {
                      send_each(statements, from + 1, done);
                    }});
}

// ---- refusals

// Suspends a source that cannot be followed. Other sources go on; the answers of this one age, and
// the policy retries it soon.
void Reading::suspend(std::size_t index, std::vector<Finding> why) {
  FollowedSource& source = *database_.sources[index];
  source.abandon_load();
  if (source.audit != nullptr) source.audit->spoil();
  const std::int64_t now_ns = boot_ns();
  source.report_problems(std::move(why),
                         "until this is mended its answers grow old: they are not fresh, and past"
                         " `max_stale` there are none",
                         now_ns);
  source.status.polled = false;
  source.status.suspended = true;
  deadline_ns_ = kNoDeadline;
  database_.refresh.work_refused(now_ns);
}

Reading::Refused Reading::refusal_handler(std::size_t index) {
  return [this, index](const PgQueryError& error) {
    const bool changed = error.sqlstate() == kLayoutChanged || error.sqlstate() == kPlanOutdated;
    if (changed && ++database_.sources[index]->refused_in_a_row < kRaces) {
      overtaken(index);
      return;
    }
    // At the start, the operator must learn of it.
    if (!database_.board.ready()) throw error;
    suspend(index, {{Lint::kQueryRefused, 0, "", step_ + ": " + error.what()}});
  };
}

// The table was changed between the look-up and the reading.
void Reading::overtaken(std::size_t index) {
  FollowedSource& source = *database_.sources[index];
  source.abandon_load();
  if (source.audit != nullptr) source.audit->spoil();
  deadline_ns_ = kNoDeadline;
  database_.refresh.work_overtaken(boot_ns());
}

// ---- heartbeats

void Reading::echo(const std::string& channel, const std::string& nonce, Refused refused) {
  echoing_ = true;
  connection_.send(notify_sql(), {channel, nonce},
                   {.copy_data = {},
                    .rows = {},
                    .done = [this] { echo_sent(); },
                    .refused =
                        [this, refused = std::move(refused)](const PgQueryError& error) {
                          refused(error);
                          echo_sent();
                        },
                    .what = "the heartbeat's notification"});
}

void Reading::echo_sent() {
  echoing_ = false;
  if (const auto next = std::exchange(after_echo_, nullptr)) next();
}

}  // namespace latchkey
