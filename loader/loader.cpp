#include "loader/loader.h"

#include <openssl/rand.h>
#include <poll.h>
#include <pthread.h>
#include <spdlog/fmt/ranges.h>
#include <spdlog/spdlog.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cassert>
#include <limits>
#include <system_error>

#include "keymap/clock.h"
#include "loader/queries.h"
#include "loader/triggers.h"

namespace latchkey {
namespace {

constexpr std::int64_t kSecond = 1'000'000'000;
// Each step of a conversation has this long; a load, for each of its parts.
constexpr std::int64_t kStepDeadline = 10 * kSecond;
constexpr std::int64_t kLoadSilence = 30 * kSecond;
// A worker that is stuck is reported at once, and then so often.
constexpr std::int64_t kStallLogEvery = 60 * kSecond;
constexpr std::int64_t kNoDeadline = std::numeric_limits<std::int64_t>::max();

// Errors instead of hidden rows; no search path to be led astray by; a lock that somebody holds
// must not hang us for longer than a step.
constexpr const char* kSessionSettings =
    "SET row_security = off;"
    "SET search_path = pg_catalog, pg_temp;"
    "SET lock_timeout = '8s';"
    "SET statement_timeout = 0;"
    "SELECT pg_catalog.set_config(name, '0', false) FROM pg_catalog.pg_settings"
    " WHERE name = 'idle_session_timeout';";

std::string random_hex(std::size_t bytes) {
  std::string raw(bytes, '\0');
  if (RAND_bytes(reinterpret_cast<unsigned char*>(raw.data()), static_cast<int>(bytes)) != 1) {
    throw std::runtime_error("no randomness");
  }
  std::string hex;
  for (const char c : raw) {
    constexpr const char* kDigits = "0123456789abcdef";
    hex += kDigits[static_cast<unsigned char>(c) >> 4];
    hex += kDigits[c & 15];
  }
  return hex;
}

std::uint64_t random_seed() {
  std::uint64_t seed = 0;
  if (RAND_bytes(reinterpret_cast<unsigned char*>(&seed), sizeof seed) != 1) {
    throw std::runtime_error("no randomness");
  }
  return seed;
}

double seconds(std::int64_t ns) { return static_cast<double>(ns) / 1e9; }

}  // namespace

struct Loader::Source {
  LoaderSource settings;
  KeySetWriter writer;
  TableFacts facts;
  std::optional<RowReader> reader;
  std::optional<CopyReader> copy;
  OddityCounts load_oddities{};
  std::int64_t load_since_ns = 0;
  SourceStatus status;
  std::optional<std::size_t> last_used;  // its number there, if it is written back

  Source(LoaderSource from, Quiescence& quiescence)
      : settings(std::move(from)), writer(*settings.keys, quiescence) {
    status.name = settings.config.name;
  }
  void make_reader() {
    reader.emplace(settings.config, facts, writer.scopes(), settings.pepper_versions);
  }
};

Loader::Loader(DatabaseConfig database, std::vector<LoaderSource> sources, Quiescence& quiescence)
    : database_(std::move(database)),
      quiescence_(quiescence),
      refresh_(sources.size(), database_.refresh, random_seed()),
      last_used_(database_.name, database_.target, database_.last_used_flush_ns, random_seed()),
      wake_fd_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  if (wake_fd_ < 0) throw std::system_error(errno, std::generic_category(), "eventfd");
  for (LoaderSource& source : sources) {
    sources_.push_back(std::make_unique<Source>(std::move(source), quiescence));
    Source& added = *sources_.back();
    UseLog* uses = added.settings.keys->uses.get();
    if (uses == nullptr) continue;
    added.last_used = last_used_.add(added.settings.config, added.facts, added.writer, *uses);
    uses->on_half_full([this] { wake(); });
  }
  status_.database = database_.name;
  status_.since_boot_ns = boot_ns();
  publish_status();
}

Loader::~Loader() {
  stop();
  close(wake_fd_);
}

void Loader::start() {
  thread_ = std::thread([this] { run(); });
}

void Loader::stop() {
  stopping_ = true;
  post([] {});
  if (thread_.joinable()) thread_.join();
}

// ---- other threads

void Loader::post(std::function<void()> task) {
  {
    const std::lock_guard lock(mutex_);
    posted_.push_back(std::move(task));
  }
  wake();
}

// Neither blocks nor allocates: workers call it.
void Loader::wake() const {
  const std::uint64_t one = 1;
  // Only a counter at its limit can refuse, and then the thread is awake anyway.
  [[maybe_unused]] const ssize_t written = write(wake_fd_, &one, sizeof one);
}

std::optional<Loader::Unready> Loader::wait_ready(std::chrono::milliseconds timeout,
                                                  bool first_attempt_only) {
  std::unique_lock lock(mutex_);
  changed_.wait_for(lock, timeout, [&] {
    return ready_ || (unready_ && (unready_->final || first_attempt_only));
  });
  if (ready_) return std::nullopt;
  if (unready_) return unready_;
  return Unready{{"the tables were not loaded within the time allowed"}, false};
}

std::uint64_t Loader::sync(std::function<void()> done) {
  const std::uint64_t id = next_sync_++;
  post([this, id, done = std::move(done)]() mutable {
    syncs_.emplace(id, std::move(done));
    refresh_.sync_wanted(id);
  });
  return id;
}

void Loader::abandon_sync(std::uint64_t id) {
  post([this, id] {
    syncs_.erase(id);
    refresh_.sync_abandoned(id);
  });
}

void Loader::set_pepper_versions(const std::string& name,
                                 std::unordered_set<std::string> versions) {
  post([this, name, versions = std::move(versions)]() mutable {
    for (const auto& source : sources_) {
      if (source->settings.config.name != name) continue;
      source->settings.pepper_versions = std::move(versions);
      if (source->reader) source->make_reader();
      return;
    }
  });
}

LoaderStatus Loader::status() const {
  const std::lock_guard lock(mutex_);
  return status_;
}

// ---- the thread

void Loader::run() {
  // For `top -H` and debuggers; the kernel takes 15 characters.
  pthread_setname_np(pthread_self(), ("load " + database_.name).substr(0, 15).c_str());
  while (!stopping_) {
    run_posted();
    act();
    last_used_.turn(boot_ns(), alive());
    collect();
  }
  last_used_.finish(alive());
  disconnect();
}

// Frees what no worker can hold any more, and says whose fault it is if that is nothing.
void Loader::collect() {
  std::optional<std::uint64_t> oldest;
  std::size_t waiting = 0;
  for (const auto& source : sources_) {
    source->writer.collect();
    waiting += source->writer.memory().waiting;
    const auto stamp = source->writer.oldest_retired();
    if (stamp && (!oldest || *stamp < *oldest)) oldest = stamp;
  }
  const auto stall = stall_watch_.look(quiescence_, oldest, awake_ns());
  const std::lock_guard lock(mutex_);
  if (stall) {
    if (stall->readers != status_.stalled_readers ||
        stall->for_ns > stall_logged_ns_ + kStallLogEvery) {
      stall_logged_ns_ = stall->for_ns;
      spdlog::warn(
          "{} stuck in one batch for {:.1f} s: {} bytes of outdated records cannot be freed, and"
          " memory grows with each change. A batch takes microseconds. If it does not go on by"
          " itself (it may have been stopped, by a debugger for instance), restart latchkeyd.",
          fmt::join(stall->readers, ", "), seconds(stall->for_ns), waiting);
    }
    status_.stalled_readers = stall->readers;
    status_.stalled_ns = stall->for_ns;
  } else if (!status_.stalled_readers.empty() &&
             (!oldest || quiescence_.holders_of(*oldest).empty())) {
    spdlog::info("all workers go on: outdated records are freed again");
    status_.stalled_readers.clear();
    status_.stalled_ns = 0;
  }
}

void Loader::run_posted() {
  std::vector<std::function<void()>> tasks;
  {
    const std::lock_guard lock(mutex_);
    tasks.swap(posted_);
  }
  for (const auto& task : tasks) task();
}

// Does all that can be done now, then waits once.
void Loader::act() {
  std::int64_t until_ns = 0;
  try {
    for (bool acting = true; acting;) {
      const Refresh::Action action = refresh_.next(boot_ns());
      if (const auto* wait = std::get_if<Refresh::Wait>(&action)) {
        until_ns = wait->until_ns;
        acting = false;
      } else if (std::holds_alternative<Refresh::Connect>(action)) {
        connect();
      } else if (const auto* barrier = std::get_if<Refresh::SendBarrier>(&action)) {
        send_barrier(barrier->number);
      } else if (const auto* load_action = std::get_if<Refresh::Load>(&action)) {
        load(load_action->source);
      } else if (const auto* reread_action = std::get_if<Refresh::Reread>(&action)) {
        reread(reread_action->source, reread_action->ids);
      } else if (const auto* proof = std::get_if<Refresh::Prove>(&action)) {
        prove(*proof);
      } else {
        fail(std::get<Refresh::Disconnect>(action).why);
      }
    }
    publish_status();
    wait(until_ns);
    turn();
  } catch (const PgConnectError& error) {
    fail(std::string("cannot connect: ") + error.what(),
         ". Check `conninfo` (host, port, dbname, user) and `password_file`, that the server runs"
         " and accepts this role (`latchkey sql grant` prints what makes it), and that it is not a"
         " standby.");
  } catch (const PgQueryError& error) {
    // What the catalogue does not like now, it will not like in a second either.
    fail(error.what(), "", /*final=*/inspecting_);
  } catch (const PgError& error) {
    fail(error.what());
  } catch (const std::exception& error) {
    // A row or a catalogue that we cannot make sense of. Keep what is known, try again later.
    fail(std::string("unexpected answer of the database: ") + error.what());
  }
}

void Loader::wait(std::int64_t until_ns) {
  bool more = false;
  std::array<pollfd, 4> fds{};
  std::size_t count = 0;
  fds[count++] = {wake_fd_, POLLIN, 0};
  for (const auto& connection : {std::cref(listen_), std::cref(work_)}) {
    if (connection.get() == nullptr) continue;
    fds[count++] = {connection.get()->socket(), connection.get()->events(), 0};
    more = more || connection.get()->more_to_do();
  }
  if (last_used_.socket() >= 0) fds[count++] = {last_used_.socket(), last_used_.events(), 0};
  until_ns = std::min({until_ns, last_used_.next_ns(), listen_ ? listen_deadline_ns_ : kNoDeadline,
                       work_ ? work_deadline_ns_ : kNoDeadline});
  timespec timeout{};
  const std::int64_t left_ns = more ? 0 : std::max<std::int64_t>(0, until_ns - boot_ns());
  timeout.tv_sec = left_ns / kSecond;
  timeout.tv_nsec = left_ns % kSecond;
  ppoll(fds.data(), count, until_ns == kNoDeadline && !more ? nullptr : &timeout, nullptr);
  if ((fds[0].revents & POLLIN) != 0) {
    std::uint64_t wakes = 0;
    [[maybe_unused]] const ssize_t got = read(wake_fd_, &wakes, sizeof wakes);
  }
}

void Loader::turn() {
  if (listen_ == nullptr) return;
  const bool was_connected = work_->connected();
  try {
    work_->advance();
  } catch (const PgQueryError& error) {
    throw PgQueryError(work_step_ + ": " + error.what());
  }
  if (!was_connected && work_->connected()) {
    work_->send(kSessionSettings, {.copy_data = {}, .rows = {}, .done = [this] { inspect(0); }});
  }

  // Last, so that a heartbeat that came while a load kept this thread busy is not called late.
  listen_->advance();
  if (listen_->connected() && heartbeat_channel_.empty()) listen_connected();
  drain_notifications();
  if (nonce_back_ && listen_->idle()) barrier_query_done();

  const std::int64_t now_ns = boot_ns();
  if (now_ns > listen_deadline_ns_) {
    throw PgError("the listening connection got no answer within " +
                  std::to_string(kStepDeadline / kSecond) + " seconds");
  }
  if (now_ns > work_deadline_ns_) {
    throw PgError(work_step_ + ": the database gave no answer in time");
  }
}

// ---- connecting

void Loader::connect() {
  {
    const std::lock_guard lock(mutex_);
    ++status_.connects;
  }
  const std::int64_t now_ns = boot_ns();
  heartbeat_channel_.clear();
  nonce_.clear();
  nonce_back_ = false;
  listen_deadline_ns_ = work_deadline_ns_ = now_ns + kStepDeadline;
  work_step_ = "connecting";
  inspecting_ = true;
  listen_ = std::make_unique<PgConnection>(database_.target);
  work_ = std::make_unique<PgConnection>(database_.target);
}

void Loader::listen_connected() {
  // The heartbeat has a channel of its own, so that other daemons' heartbeats are not delivered to
  // us: notifications of all channels still come in commit order.
  heartbeat_channel_ = "latchkey_heartbeat_" + random_hex(8);
  listen_->send(
      std::string(kSessionSettings) + "LISTEN " + kChangeChannel + ";LISTEN " + heartbeat_channel_,
      {.copy_data = {}, .rows = {}, .done = [this] {
         listen_deadline_ns_ = kNoDeadline;
         refresh_.listen_ready(boot_ns());
       }});
}

// Looks every source up in the catalogue, one after the other; then the work lane is ready.
void Loader::inspect(std::size_t index) {
  if (index == sources_.size()) {
    std::vector<std::string> found;
    for (const auto& source : sources_) {
      for (std::string& problem : problems(source->settings.config, source->facts)) {
        found.push_back("source \"" + source->settings.config.name + "\": " + std::move(problem));
      }
      source->facts.exists ? source->make_reader() : source->reader.reset();
    }
    if (!found.empty()) {
      const std::lock_guard lock(mutex_);
      unready_ = Unready{found, /*final=*/true};
    }
    if (!found.empty()) throw PgError(found.front());
    inspecting_ = false;
    work_deadline_ns_ = kNoDeadline;
    refresh_.work_ready(boot_ns());
    return;
  }
  Source& source = *sources_[index];
  work_step_ = "`time_zone` of source \"" + source.status.name +
               "\" must be one that PostgreSQL knows, such as \"UTC\" or \"Europe/Oslo\"";
  const auto look_up = [this, index] {
    look_up_table(*sources_[index], [this, index] { inspect(index + 1); });
  };
  work_->send(time_zone_sql(source.settings.config),
              {.copy_data = {}, .rows = {}, .done = look_up});
}

// What the catalogue says of the table now, then `done`.
void Loader::look_up_table(Source& source, std::function<void()> done) {
  work_step_ = "looking up the table of source \"" + source.status.name + "\"";
  work_->send(inspect_sql(source.settings.config),
              {.copy_data = {},
               .rows =
                   [&source](const PgRows& rows) {
                     source.facts = TableFacts::from_json(rows.field(0, 0).value_or("{}"));
                   },
               .done = std::move(done)});
}

// ---- the barrier

void Loader::send_barrier(std::uint64_t number) {
  assert(listen_->idle());
  barrier_number_ = number;
  nonce_ = random_hex(16);
  nonce_back_ = false;
  barrier_sent_ns_ = boot_ns();
  listen_->send("SELECT pg_catalog.pg_notify($1, $2)", {heartbeat_channel_, nonce_}, {});
}

void Loader::barrier_query_done() {
  nonce_back_ = false;
  {
    const std::lock_guard lock(mutex_);
    ++status_.barriers;
    status_.barrier_us = (boot_ns() - barrier_sent_ns_) / 1000;
  }
  refresh_.barrier_returned(barrier_number_);
}

void Loader::drain_notifications() {
  while (const auto notification = listen_->next_notification()) take_notification(*notification);
}

void Loader::take_notification(const PgNotification& notification) {
  if (notification.channel == heartbeat_channel_) {
    if (!nonce_.empty() && notification.payload == nonce_) nonce_back_ = true;
    return;
  }
  const auto notice = ChangeNotice::parse(notification.payload);
  {
    const std::lock_guard lock(mutex_);
    ++status_.notifications;
    if (!notice) ++status_.malformed_notifications;
  }
  if (!notice) return;  // not from a trigger of ours
  for (std::size_t i = 0; i < sources_.size(); ++i) {
    Source& source = *sources_[i];
    if (source.settings.config.table.display() != notice->table) continue;
    if (notice->all) {
      refresh_.notified_all(i);
      continue;
    }
    std::vector<std::string> ids;
    for (const std::string& id : notice->ids) {
      if (is_id(source.settings.config, source.facts, id)) {
        ids.push_back(id);
      } else {
        ++source.status.malformed_ids;
      }
    }
    if (!ids.empty()) refresh_.notified(i, std::move(ids));
  }
}

// ---- loads

namespace {

RowView row_view(const CopyReader::Fields& fields) {
  RowView row;
  std::ranges::copy(fields, row.begin());
  return row;
}

void log_oddities(const std::string& source, const char* rows, const OddityCounts& counts) {
  for (std::size_t i = 0; i < kOddities; ++i) {
    if (counts[i] == 0) continue;
    const auto oddity = static_cast<Oddity>(i);
    spdlog::warn("source \"{}\": {} {}: {}: {}", source, counts[i], rows, oddity_name(oddity),
                 oddity_sentence(oddity));
  }
}

RowView row_view(const PgRows& rows, int index) {
  RowView row;
  for (std::size_t i = 0; i < kRowFields; ++i) row[i] = rows.field(index, static_cast<int>(i));
  return row;
}

}  // namespace

// Before each load the table is looked up again: a trigger that somebody dropped while we ran is
// reported by the next audit, not by silence.
void Loader::load(std::size_t index) {
  Source& source = *sources_[index];
  work_deadline_ns_ = boot_ns() + kStepDeadline;
  look_up_table(source, [this, index] {
    Source& looked_up = *sources_[index];
    report_problems(looked_up);
    if (!looked_up.facts.exists) throw PgError(looked_up.status.problems.front());
    looked_up.make_reader();
    copy(index);
  });
}

void Loader::report_problems(Source& source) {
  std::vector<std::string> found = problems(source.settings.config, source.facts);
  if (found == source.status.problems) return;
  for (const std::string& problem : found) {
    spdlog::error("source \"{}\": {}", source.status.name, problem);
  }
  source.status.problems = std::move(found);
}

void Loader::copy(std::size_t index) {
  Source& source = *sources_[index];
  work_step_ = "loading source \"" + source.status.name + "\"";
  source.writer.begin_load();
  source.copy.emplace(std::size_t{kRowFields});
  source.load_oddities = {};
  source.load_since_ns = boot_ns();
  source.status.load_rows = 0;
  work_deadline_ns_ = source.load_since_ns + kLoadSilence;
  const auto take = [this, &source](const CopyReader::Fields& fields) {
    ++source.status.load_rows;
    const auto facts = source.reader->read(row_view(fields), source.load_oddities);
    if (facts) source.writer.load(*facts);
  };
  work_->send(load_sql(source.settings.config, source.facts),
              {.copy_data =
                   [this, &source, take](std::string_view message) {
                     work_deadline_ns_ = boot_ns() + kLoadSilence;
                     source.copy->read(message, take);
                   },
               .rows = {},
               .done = [this, index] { load_done(index); }});
}

void Loader::load_done(std::size_t index) {
  Source& source = *sources_[index];
  const LoadReport report = source.writer.finish_load();
  const std::int64_t now_ns = boot_ns();
  source.status.load_seconds = seconds(now_ns - source.load_since_ns);
  source.status.oddities = source.load_oddities;
  ++source.status.loads;
  work_deadline_ns_ = kNoDeadline;
  spdlog::info("source \"{}\": loaded {} rows in {:.2f} s ({} new, {} changed, {} gone)",
               source.status.name, source.status.load_rows, source.status.load_seconds,
               report.added, report.changed, report.removed);
  if (source.writer.rows() == 0 && report.removed > 0) {
    spdlog::warn("source \"{}\": all its keys are gone: table {} is empty now", source.status.name,
                 source.settings.config.table.display());
  }
  log_oddities(source.status.name, "rows", source.load_oddities);
  if (source.writer.ambiguous_digests() > 0) {
    spdlog::warn(
        "source \"{}\": {} keys stand in several rows each. Such a key is refused unless a single"
        " row holds it: delete or change the others.",
        source.status.name, source.writer.ambiguous_digests());
  }
  refresh_.work_done(now_ns);
}

// ---- single rows

void Loader::reread(std::size_t index, std::vector<std::string> ids) {
  Source& source = *sources_[index];
  work_step_ = "reading changed rows of source \"" + source.status.name + "\"";
  source.status.rereads += ids.size();
  work_deadline_ns_ = boot_ns() + kStepDeadline;
  const std::string array = array_literal(ids);
  work_->send(reread_sql(source.settings.config, source.facts), {array},
              {.copy_data = {},
               .rows = [this, index, ids = std::move(ids)](
                           const PgRows& rows) { apply_reread(index, rows, ids); },
               .done =
                   [this] {
                     work_deadline_ns_ = kNoDeadline;
                     refresh_.work_done(boot_ns());
                   }});
}

void Loader::apply_reread(std::size_t index, const PgRows& rows,
                          const std::vector<std::string>& ids) {
  Source& source = *sources_[index];
  OddityCounts oddities{};
  std::vector<RecordFacts> good, refused;
  std::unordered_set<std::string_view> found;
  for (int i = 0; i < rows.rows(); ++i) {
    const auto facts = source.reader->read(row_view(rows, i), oddities);
    if (!facts) continue;
    (facts->state == RowState::kActive ? good : refused).push_back(*facts);
    found.emplace(facts->key_id);
  }
  // Refusals first, then what is gone (no row, or none that a key could match), then what is good.
  {
    const KeySetWriter::Batch batch(source.writer);
    for (const RecordFacts& facts : refused) source.writer.upsert(facts);
    for (const std::string& id : ids) {
      if (!found.contains(id)) source.writer.remove(id);
    }
    for (const RecordFacts& facts : good) source.writer.upsert(facts);
  }
  log_oddities(source.status.name, "changed rows", oddities);
}

// ---- proofs, failures, status

void Loader::prove(const Refresh::Prove& prove) {
  for (const auto& source : sources_) source->settings.keys->freshness.prove(prove.boot_ns);
  for (const std::uint64_t sync : prove.syncs) {
    const auto found = syncs_.find(sync);
    if (found == syncs_.end()) continue;
    const std::function<void()> done = std::move(found->second);
    syncs_.erase(found);
    done();
  }
  bool first = false;
  {
    const std::lock_guard lock(mutex_);
    first = !ready_;
    ready_ = true;
  }
  if (!first) return;
  publish_status();
  changed_.notify_all();
}

void Loader::fail(const std::string& why, const std::string& advice, bool final) {
  disconnect();
  refresh_.failed(boot_ns());
  {
    const std::lock_guard lock(mutex_);
    ++status_.failures;
    // Said once for each new trouble, not at each attempt.
    if (status_.last_error != why || status_.state == Refresh::State::kLive) {
      spdlog::error("database \"{}\": {}", database_.name, why);
    }
    status_.last_error = why;
    if (!ready_ && !(unready_ && unready_->final)) {
      unready_ = Unready{{"database \"" + database_.name + "\": " + why + advice}, final};
    }
  }
  changed_.notify_all();
}

const PgConnection* Loader::alive() const {
  return refresh_.state() == Refresh::State::kLive ? listen_.get() : nullptr;
}

void Loader::disconnect() {
  last_used_.disconnect();  // whoever listens anew may listen to another server
  listen_.reset();
  work_.reset();
  for (const auto& source : sources_) source->writer.abandon_load();
}

void Loader::publish_status() {
  const std::lock_guard lock(mutex_);
  const Refresh::State state = refresh_.state();
  if (state != status_.state) {
    if (state == Refresh::State::kLive) {
      spdlog::info("database \"{}\": in step, listening for changes", database_.name);
    }
    status_.state = state;
    status_.since_boot_ns = boot_ns();
  }
  status_.pending_ids = refresh_.pending_ids();
  status_.sources.resize(sources_.size());
  for (std::size_t i = 0; i < sources_.size(); ++i) {
    Source& source = *sources_[i];
    source.status.rows = source.writer.rows();
    source.status.keys = source.settings.keys->map.size();
    source.status.ambiguous = source.writer.ambiguous_digests();
    source.status.memory = source.writer.memory();
    if (source.last_used) source.status.last_used = last_used_.counts(*source.last_used);
    status_.sources[i] = source.status;
  }
}

}  // namespace latchkey
