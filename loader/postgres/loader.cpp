#include "loader/postgres/loader.h"

#include <openssl/rand.h>
#include <poll.h>
#include <pthread.h>
#include <spdlog/fmt/ranges.h>
#include <spdlog/spdlog.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cassert>
#include <charconv>
#include <limits>
#include <new>
#include <system_error>

#include "base/clock.h"
#include "base/encoding.h"
#include "base/printable.h"
#include "loader/lint.h"
#include "loader/postgres/catalogue_lint.h"
#include "loader/postgres/nonce.h"
#include "loader/postgres/problems.h"
#include "loader/postgres/queries.h"
#include "loader/postgres/row_hasher.h"
#include "loader/postgres/session_setup.h"
#include "loader/postgres/text_converter.h"
#include "loader/postgres/triggers.h"
#include "loader/postgres/version.h"

namespace latchkey {
namespace {

constexpr std::int64_t kLoadSilence = 30 * kSecond;
// A digest of a whole table comes in one piece, after as long as it takes; at least so long is
// given.
constexpr std::int64_t kAuditPatience = 60 * kSecond;
constexpr int kNiceness = 10;
// So many times in a row a reading is taken for overtaken by somebody's ALTER TABLE. After that it
// is refused as any other: code that the table runs, or a broken value, may raise the same SQLSTATE
// for ever, and somebody has to be told.
constexpr int kRaces = 3;
// Of the listening session. Anybody can notify of bytes that cannot be converted: to convert them
// for us, PostgreSQL would fail, and end the connection (PostgreSQL manual, "Character Set
// Support").
constexpr const char* kBytesAsTheyAre = "SET client_encoding = 'SQL_ASCII';";
constexpr const char* kHeartbeat = "latchkey_heartbeat";  // the prepared statement
// Likewise; of the question for changed rows of one source.
std::string reread_name(std::size_t index) { return "latchkey_reread_" + std::to_string(index); }
constexpr std::size_t kGrown = 1000;    // rows that make no difference to a plan
constexpr const char* kOutdated = "?";  // in place of a question that has been prepared
// feature_not_supported: a plan that is kept would answer with other types than before.
constexpr std::string_view kPlanOutdated = "0A000";
// As long as that, the reading connection is waited for with what must be heard from it.
constexpr std::int64_t kMeetingDeadline = 5 * kSecond;
// LISTEN has to pass what is in PostgreSQL's notification queue (8 GB at most), usually nothing. A
// LISTEN that takes longer than this is looked at, once a second. A queue that is less full than
// kListenQueueMin is not what it waits for. A whole queue may take kListenWholeQueue before the
// connection is given up: a new LISTEN starts at the queue's tail again, which then cannot be
// freed.
constexpr std::int64_t kListenLookAfter = kSecond;
constexpr double kListenQueueMin = 0.0005;
constexpr std::int64_t kListenWholeQueue = 3600 * kSecond;
constexpr const char* kQueueFull = "54000";  // program_limit_exceeded, when we notify
constexpr const char* kQueueIsFull =
    "PostgreSQL's notification queue is full, so nothing that notifies can commit: no change of"
    " keys, nor our heartbeat.";
// An eighth of `bound`: so long the reading connection is waited for before there is another one
// for heartbeats. (Half of it where an audit would have to make way.) And how often that is looked
// at.
constexpr std::int64_t kEchoPatience = 8;
constexpr std::int64_t kEchoLook = 20'000'000;
// A queue that is fuller than this is said to be.
constexpr double kQueueUsageWarning = 0.5;
// While a load streams, it is looked at so often, and not whenever some kilobytes have come: to
// wake somebody costs the server more than to send a row. What waits meanwhile fits the socket's
// buffer.
constexpr std::int64_t kStreamPause = 200'000;
// The listening socket is emptied for so long before anything else has its turn, and what came of
// it is looked at for so long: floods of notifications must not keep this thread from its other
// work.
constexpr std::int64_t kDrainFor = 10'000'000;
constexpr std::int64_t kTakeFor = 10'000'000;
// However little happens, the watchdog sees that this thread runs.
constexpr std::int64_t kTickEvery = kSecond;
// A worker that is stuck is reported at once, and then so often.
constexpr std::int64_t kStallLogEvery = 60 * kSecond;

// More than any table of keys has: an estimate beyond it is an error, and must not cost more.
constexpr double kRowsExpectedMax = 1e9;

std::size_t rows_to_expect(double estimated) {
  return static_cast<std::size_t>(std::clamp(estimated, 0.0, kRowsExpectedMax));
}

std::uint64_t random_seed() {
  std::uint64_t seed = 0;
  if (RAND_bytes(reinterpret_cast<unsigned char*>(&seed), sizeof seed) != 1) {
    throw std::runtime_error("no randomness");
  }
  return seed;
}

std::string numbered(const LintFinding& finding) {
  return std::string(finding.number()) + ": " + finding.text;
}

double seconds(std::int64_t ns) { return static_cast<double>(ns) / 1e9; }

std::vector<std::string> tables_of(const std::vector<LoaderSource>& sources) {
  std::vector<std::string> tables;
  for (const LoaderSource& source : sources) {
    const std::string table = source.config.table.display();
    if (std::ranges::find(tables, table) == tables.end()) tables.push_back(table);
  }
  return tables;
}

// By the number of each table, the numbers of its sources.
std::vector<std::vector<std::size_t>> sources_of(const std::vector<std::string>& tables,
                                                 const std::vector<LoaderSource>& sources) {
  std::vector<std::vector<std::size_t>> list(tables.size());
  for (std::size_t i = 0; i < sources.size(); ++i) {
    const auto table = std::ranges::find(tables, sources[i].config.table.display());
    list[static_cast<std::size_t>(table - tables.begin())].push_back(i);
  }
  return list;
}

// A number as long as it may be and nothing else, or nothing.
template <typename T>
std::optional<T> number_of(std::string_view text, int base) {
  T number = 0;
  const char* end = text.data() + text.size();
  const auto [rest, error] = std::from_chars(text.data(), end, number, base);
  if (text.empty() || error != std::errc() || rest != end) return std::nullopt;
  return number;
}

double number_or_fail(std::string_view text) {
  double number = 0;
  const char* end = text.data() + text.size();
  const auto [rest, error] = std::from_chars(text.data(), end, number);
  if (text.empty() || error != std::errc() || rest != end) {
    throw PgError("what the server says of its notification queue is no number");
  }
  return number;
}

// What the catalogue says, from bytea as text (PostgreSQL manual, "bytea Hex Format").
std::string catalogue_text(std::string_view hex, std::string_view encoding) {
  const auto bytes = hex.starts_with("\\x") ? decode_hex(hex.substr(2)) : std::nullopt;
  if (!bytes) throw PgError("the look-up of the table cannot be read");
  return TextConverter(encoding).to_utf8_or_marks(*bytes);
}

}  // namespace

struct Loader::Source {
  LoaderSource settings;
  KeySetWriter writer;
  TableFacts facts;
  struct LoadRow {
    CopyReader::Fields fields;
    RowDecoder::Texts texts{};
    RowView view{};
  };
  std::vector<LoadRow> batch;
  std::vector<WireRow> wire;
  std::vector<std::string_view> key_ids;
  std::vector<const Record*> known;
  std::vector<std::uint64_t> hashes;
  RowHasher hasher;
  UnusableRows unusable;
  std::optional<std::string>
      version_reloaded;  // of the table's state, for whose sake it was read again last
  std::optional<RowDecoder> decoder;
  std::optional<RowReader> reader;
  std::optional<CopyReader> copy;
  std::optional<LoadLint> lint;
  std::optional<OverlapWalk> overlap;
  std::int64_t load_since_ns = 0;
  LoadReason load_reason = LoadReason::kConnected;
  std::int64_t told_ns = 0;   // of the first change that nobody has begun to read; 0: none
  std::int64_t asked_ns = 0;  // likewise, of those that are being read
  bool overtaken = false;     // the table's types are not those looked up
  int refused_in_a_row = 0;   // readings, with kLayoutChanged; since the last load
  UndecidedAudits undecided;
  LogLimits log_limits;
  SourceStatus status;
  std::optional<std::size_t> last_used;  // its number there, if it is written back
  std::string prepared;  // the question for changed rows that the reading session keeps planned
  std::size_t prepared_rows = 0;  // how many the table had then

  Source(LoaderSource from, Quiescence& quiescence)
      : settings(std::move(from)), writer(*settings.keys, quiescence) {
    status.name = settings.config.name;
  }
  // Rows of a load, many at a time: their hashes are computed in pairs, and their look-ups wait for
  // memory together.
  void take(std::span<const std::string_view> messages) {
    std::size_t count = 0;
    for (const std::string_view message : messages) {
      copy->read(message, [&](const CopyReader::Fields& fields) {
        if (batch.size() == count) batch.emplace_back();
        batch[count++].fields = fields;
      });
    }
    const std::span rows = std::span(batch).first(count);
    status.load_rows += count;
    wire.clear();
    key_ids.clear();
    for (LoadRow& row : rows) {
      wire.emplace_back(row.fields);
      decoder->decode(row.fields, row.texts, row.view);
      key_ids.push_back(row.view[kFieldId].value_or(""));
    }
    hashes.resize(count);
    hasher(decoder->fields(), wire, hashes);
    known.resize(count);
    writer.find(key_ids, known);
    for (const Record* record : known) {
      if (record != nullptr) record->prefetch_rest();
    }
    for (std::size_t i = 0; i < count; ++i) {
      const RowView& view = rows[i].view;
      RowMeaning meaning = reader->read(view);
      lint->count(meaning);
      auto& said = meaning.facts;
      if (said && !said->id_is_made_up) {
        said->row_hash = hashes[i];
        writer.load(*said, known[i]);
        continue;
      }
      // An audit does not find it among the records.
      if (view[kFieldId] && view[kFieldKey]) unusable.load(*view[kFieldId], hashes[i]);
      if (said) writer.load(*said);
    }
  }

  void abandon_load() {
    writer.abandon_load();
    unusable.abandon_load();
    status.loading = false;
  }

  void make_reader() {
    decoder.emplace(wire_fields(settings.config, facts), facts.encoding);
    reader.emplace(settings.config, facts, writer.scopes(), settings.pepper_versions);
  }
};

Loader::Loader(DatabaseConfig database, std::vector<LoaderSource> sources, Quiescence& quiescence)
    : database_(std::move(database)),
      quiescence_(quiescence),
      hosts_(hosts_of(database_.target.conninfo)),
      refresh_(sources.size(), database_.refresh, random_seed()),
      last_used_(database_.name, database_.target, database_.last_used_flush_ns, random_seed()),
      tables_(tables_of(sources)),
      sources_of_(sources_of(tables_, sources)),
      notices_(tables_),
      ticked_ns_(awake_ns()),
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
  ended_ = false;
  thread_ = std::thread([this] {
    run();
    ended_ = true;
  });
  // For `top -H` and debuggers; the kernel takes 15 characters.
  pthread_setname_np(thread_.native_handle(), ("load " + database_.name).substr(0, 15).c_str());
}

void Loader::request_stop() {
  stopping_ = true;
  post([] {});
}

void Loader::stop() {
  request_stop();
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
    const bool given_up = first_attempt_only && status_.rounds_failed > 0;
    return ready_ || (unready_ && (unready_->final || given_up));
  });
  if (ready_) return std::nullopt;
  if (unready_) return unready_;
  return Unready{
      {{.lint = Lint::kDatabase,
        .count = 0,
        .about = database_.name,
        .text = "database \"" + database_.name +
                "\": the tables were not loaded within the time allowed (`start_timeout`)"}},
      false};
}

bool Loader::wait_linted(std::chrono::milliseconds timeout) {
  std::unique_lock lock(mutex_);
  return changed_.wait_for(lock, timeout, [&] {
    return std::ranges::none_of(status_.sources,
                                [](const SourceStatus& source) { return source.comparing; });
  });
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
  // Answers go first: where processors are scarce, a load must not make callers wait. (On Linux a
  // nice value belongs to the thread, setpriority(2); what it costs is a load that takes longer.)
  setpriority(PRIO_PROCESS, static_cast<id_t>(gettid()), kNiceness);
  while (!stopping_) {
    ticked_ns_ = awake_ns();
    run_posted();
    act();
    if (!audit_ && !echo_lane_) last_used_.turn(boot_ns(), alive());
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
        load(load_action->source, load_action->reason);
      } else if (const auto* reread_action = std::get_if<Refresh::Reread>(&action)) {
        reread(reread_action->source, reread_action->ids);
      } else if (const auto* proof = std::get_if<Refresh::Prove>(&action)) {
        prove(*proof);
      } else if (const auto* audit_action = std::get_if<Refresh::Audit>(&action)) {
        audit(audit_action->source);
      } else if (const auto* compare_action = std::get_if<Refresh::Compare>(&action)) {
        compare(compare_action->source);
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
  } catch (const std::bad_alloc&) {
    fail("not enough memory for the keys",
         ". A load takes about 150 bytes a key, and as much again for those that have changed. Give"
         " latchkeyd more (systemd: MemoryMax=), or the host.");
  } catch (const std::exception& error) {
    // A row or a catalogue that we cannot make sense of. Keep what is known, try again later.
    fail(std::string("unexpected answer of the database: ") + error.what());
  }
}

void Loader::wait(std::int64_t until_ns) {
  bool more = !notices_.empty();
  std::array<pollfd, 4> fds{};
  std::size_t count = 0;
  fds[count++] = {wake_fd_, POLLIN, 0};
  const auto watch = [&](const PgConnection* connection, std::int64_t deadline_ns) {
    if (connection == nullptr) return;
    more = more || connection->more_to_do();
    until_ns = std::min(until_ns, deadline_ns);
    if (connection->streaming()) {
      until_ns = std::min(until_ns, boot_ns() + kStreamPause);
    } else {
      fds[count++] = {connection->socket(), connection->events(), 0};
    }
  };
  watch(listen_.get(), listen_deadline_ns_);
  watch(work_.get(), work_deadline_ns_);
  if (audit_) {
    watch(&audit_->connection(), audit_->deadline_ns());
  } else if (echo_lane_) {
    watch(&echo_lane_->connection(), echo_lane_->deadline_ns());
  } else {  // they take turns with the third connection
    if (last_used_.socket() >= 0) fds[count++] = {last_used_.socket(), last_used_.events(), 0};
    until_ns = std::min(until_ns, last_used_.next_ns());
  }
  if (echo_wanted_ns_ != 0) until_ns = std::min(until_ns, boot_ns() + kEchoLook);
  timespec timeout{};
  const std::int64_t left_ns =
      more ? 0 : std::clamp<std::int64_t>(until_ns - boot_ns(), 0, kTickEvery);
  timeout.tv_sec = left_ns / kSecond;
  timeout.tv_nsec = left_ns % kSecond;
  ppoll(fds.data(), count, &timeout, nullptr);
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
  // Rows that come slowly come.
  if (work_->take_heard() && ready_ && work_deadline_ns_ != kNoDeadline) {
    work_deadline_ns_ = std::max(work_deadline_ns_, boot_ns() + kStepDeadline);
  }
  if (!was_connected && work_->connected()) {
    session_owner_.begin();
    forget_prepared();
    work_->send(session_settings(false),
                {.copy_data = {}, .rows = {}, .done = [this] { identify(); }});
  }
  turn_audit();

  // Last, so that a heartbeat that came while a load kept this thread busy is not called late.
  listen_->advance();
  if (listen_->connected() && heartbeat_channel_.empty()) listen_connected();
  drain_notifications();
  take_notices();
  if (nonce_back_) barrier_back();
  if (met_ && work_->idle()) {
    met_ = false;
    meeting_.clear();
    work_deadline_ns_ = kNoDeadline;
    prepare_heartbeat();
  }
  turn_echo();
  watch_listen();
  if (boot_ns() >= meet_again_ns_ && work_->idle()) meet();

  const std::int64_t now_ns = boot_ns();
  if (now_ns > listen_deadline_ns_) {
    throw PgConnectError("the listening connection got no answer in time");
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
    status_.host = hosts_[host_].display();
  }
  if (addresses_.empty()) addresses_ = addresses_of(hosts_[host_]);
  const PgHost& server = addresses_[address_];
  if (addresses_.size() > 1) {
    const std::lock_guard lock(mutex_);
    status_.host = server.display();
  }
  heartbeat_channel_.clear();
  notices_.clear();
  nonce_.clear();
  meeting_.clear();
  after_echo_ = nullptr;
  nonce_back_ = met_ = listening_ = inspected_ = echoing_ = echo_by_lane_ = false;
  echo_wanted_ns_ = 0;
  meet_again_ns_ = kNoDeadline;
  listen_deadline_ns_ = work_deadline_ns_ =
      boot_ns() + connect_timeout_ns(database_.target.conninfo);
  work_step_ = "connecting to " + server.display();
  inspecting_ = true;
  listen_ = std::make_unique<PgConnection>(database_.target, server);
  work_ = std::make_unique<PgConnection>(database_.target, server);
}

// The next address of the host, then the next host. False: all have been tried since the first.
bool Loader::try_next_server() {
  if (address_ + 1 < addresses_.size()) {
    ++address_;
    return true;
  }
  addresses_.clear();  // resolved again: a failover may be a change in the DNS
  address_ = 0;
  host_ = (host_ + 1) % hosts_.size();
  return host_ != 0;
}

void Loader::listen_connected() {
  // The heartbeat has a channel of its own, so that other daemons' heartbeats are not delivered to
  // us: notifications of all channels still come in commit order.
  heartbeat_channel_ = "latchkey_heartbeat_" + random_hex(8);
  listen_since_ns_ = listen_looked_ns_ = boot_ns();
  listen_deadline_ns_ = listen_since_ns_ + kStepDeadline;
  listen_->send(std::string("LISTEN ") + kChangeChannel + ";LISTEN " + heartbeat_channel_ + ";" +
                    session_settings(false) + heartbeat_settings() + kBytesAsTheyAre,
                {.copy_data = {}, .rows = {}, .done = [this] {
                   listening_ = true;
                   listen_deadline_ns_ = kNoDeadline;
                   meet();
                 }});
}

namespace {

// What to do about a full notification queue. Our role may not see other roles' sessions, so it
// cannot say which one it is.
constexpr const char* kWhoHoldsTheQueue =
    " A session that has executed LISTEN and stays in one transaction keeps PostgreSQL from"
    " emptying it. As a superuser, SELECT pid, usename, application_name, xact_start FROM"
    " pg_stat_activity WHERE state <> 'idle' ORDER BY xact_start; the oldest is the likeliest. End"
    " it with pg_terminate_backend(pid).";

std::string percent(double usage) { return fmt::format("{:.1f} %", usage * 100); }

}  // namespace

// A LISTEN that takes long has to pass what others have notified and somebody has not read.
void Loader::watch_listen() {
  const std::int64_t now_ns = boot_ns();
  if (listening_ || heartbeat_channel_.empty() || !inspected_ || !work_->idle()) return;
  if (now_ns < listen_looked_ns_ + kListenLookAfter) return;
  listen_looked_ns_ = now_ns;
  work_->send(listen_progress_sql(side_rights_), {std::to_string(listen_->backend_pid())},
              {.copy_data = {},
               .rows =
                   [this](const PgRows& rows) {
                     rows.expect_columns(2);
                     const auto usage = rows.field(0, 1);
                     take_listen_progress(rows.value(0, 0) == "true",
                                          usage ? number_or_fail(*usage) : 1.0);
                   },
               .done = {},
               .refused = [](const PgQueryError&) {},  // then it has the time of any other step
               .what = "the question how far LISTEN is"});
}

void Loader::take_listen_progress(bool works, double usage) {
  if (!works || usage < kListenQueueMin) return;
  const std::int64_t now_ns = boot_ns();
  const auto most_ns = static_cast<std::int64_t>(usage * static_cast<double>(kListenWholeQueue));
  if (now_ns > listen_since_ns_ + kStepDeadline + most_ns) return;
  listen_deadline_ns_ = now_ns + kStepDeadline;
  set_trouble(fmt::format("LISTEN has to pass PostgreSQL's notification queue, which is {} full,"
                          " and is given the time.{}",
                          percent(usage), kWhoHoldsTheQueue),
              /*queue_in_the_way=*/true);
}

std::vector<const SourceConfig*> Loader::configs() const {
  std::vector<const SourceConfig*> configs;
  for (const auto& source : sources_) configs.push_back(&source->settings.config);
  return configs;
}

// To plan the question costs PostgreSQL ten times as much as to answer it, and by itself it would
// plan the first five answers anew: half a second and more each on a busy machine with many
// sources, just after a reconnect.
void Loader::prepare_heartbeat() {
  listen_deadline_ns_ = boot_ns() + kStepDeadline;
  const auto prepared = [this] {
    listen_deadline_ns_ = kNoDeadline;
    inspecting_ = false;
    set_trouble("");
    refresh_.listen_ready(boot_ns());
    refresh_.work_ready(boot_ns());
  };
  const auto prepare = [this](std::function<void()> done) {
    listen_->prepare(kHeartbeat, heartbeat_sql(configs(), side_rights_),
                     {.copy_data = {}, .rows = {}, .done = std::move(done)});
  };
  if (listen_->server_encoding() == "UTF8") {
    prepare(prepared);
    return;
  }
  // The question names tables, which is text of ours.
  listen_->send("SET client_encoding = 'UTF8'",
                {.copy_data = {}, .rows = {}, .done = [this, prepare, prepared] {
                   prepare([this, prepared] {
                     listen_->send(kBytesAsTheyAre,
                                   {.copy_data = {}, .rows = {}, .done = prepared});
                   });
                 }});
}

namespace {

// NULL: it may not be known.
Lsn read_lsn(const PgRows& rows, int column) {
  const auto text = rows.field(0, column);
  if (!text) return 0;
  const auto lsn = parse_lsn(std::string(*text));
  if (!lsn) throw PgError("what the server calls its WAL position is none");
  return *lsn;
}

ServerIdentity read_identity(const PgRows& rows) {
  rows.expect_columns(6);
  ServerIdentity identity;
  if (const auto system = rows.field(0, 0)) {
    if (!number_of<std::uint64_t>(*system, 10)) {
      throw PgError("what the server calls its system identifier is no number");
    }
    identity.system = *system;
  }
  if (const auto timeline = rows.field(0, 1)) {
    const auto number = number_of<std::uint32_t>(*timeline, 16);
    if (!number) throw PgError("what the server calls its timeline is no number");
    identity.timeline = *number;
  }
  identity.position = {.inserted = read_lsn(rows, 2), .flushed = read_lsn(rows, 3)};
  identity.started = rows.field(0, 4).value_or("");
  identity.checkpoint = read_lsn(rows, 5);
  return identity;
}

// Reads what the server answered to `what`. An answer that cannot be read ends the connection.
template <typename Read>
void read_answer(const char* what, Read read) {
  try {
    read();
  } catch (const CatalogueError& error) {
    throw PgError("the server's answer to " + std::string(what) + " " + error.what());
  }
}

}  // namespace

// Asks the server who it is, before anything else.
void Loader::identify() {
  work_step_ = "asking the server who it is";
  work_deadline_ns_ = boot_ns() + kStepDeadline;
  const auto ask = [this] {
    work_->send(identity_sql(side_rights_),
                {.copy_data = {},
                 .rows = [this](const PgRows& rows) { take_identity(read_identity(rows)); },
                 // Once it serves, each load looks its own table up, and one table's trouble is no
                 // other's.
                 .done = [this] { ready_ ? inspected() : inspect(0); },
                 .what = "the question who it is"});
  };
  work_->send(side_rights_sql(), {.copy_data = {},
                                  .rows =
                                      [this](const PgRows& rows) {
                                        rows.expect_columns(kSideRights);
                                        const auto may = [&](int column) {
                                          return rows.value(0, column) == "t";
                                        };
                                        side_rights_ = {.system = may(0),
                                                        .position = may(1),
                                                        .start = may(2),
                                                        .queue = may(3),
                                                        .subscriptions = may(4)};
                                      },
                                  .done = ask,
                                  .what = "the question what it may be asked"});
}

// Rows of another history say nothing of the keys of this one. So what is known is not even served
// as stale: there is no answer until everything is loaded anew.
void Loader::take_identity(const ServerIdentity& found) {
  const std::optional<ServerIdentity> before = history_.last();
  const Lsn furthest = history_.furthest(found.timeline);
  const Lsn last_furthest = before ? history_.furthest(before->timeline) : 0;
  const IdentityChange change = history_.met(found);
  const bool promoted = change == IdentityChange::kPromotion;
  const bool discard = change != IdentityChange::kNone && !promoted;
  const auto how = [&] {
    if (change == IdentityChange::kOtherSystem) {
      return "system identifier " + found.system + " instead of " + before->system;
    }
    if (change == IdentityChange::kOlderTimeline) {
      return "timeline " + std::to_string(found.timeline) + " after " +
             std::to_string(before->timeline);
    }
    const bool behind = found.position.inserted < furthest;
    return (behind ? "WAL position " + show_lsn(found.position.inserted)
                   : "started anew from WAL position " + show_lsn(found.checkpoint)) +
           " after " + show_lsn(furthest) + " on timeline " + std::to_string(found.timeline);
  };
  if (promoted) {
    spdlog::warn("database \"{}\": another server is the primary now ({}, timeline {} after {}){}",
                 database_.name, hosts_[host_].display(), found.timeline, before->timeline,
                 found.position.inserted < last_furthest
                     ? ". It lacks the last transactions of the one before, revocations perhaps"
                     : "");
  } else if (discard) {
    spdlog::error(
        "database \"{}\": ALARM: {} is not the server that was followed so far ({}). It may have"
        " been restored from a backup, or an old primary may be back, and revocations may be"
        " undone. All keys are refused as unavailable until its tables are loaded anew.",
        database_.name, hosts_[host_].display(), how());
    for (const auto& source : sources_) source->settings.keys->freshness.forget();
  }
  const std::lock_guard lock(mutex_);
  status_.identity = found;
  if (promoted) ++status_.promotions;
  if (discard) ++status_.identity_changes;
}

// Both connections must lead to one server and database, whatever stands in between: what one sends
// the other one hears. Otherwise we would listen to one and load from another.
//
// And the listening one must hear while it has nothing to do: it has no query under way from before
// this is sent until it has come.
void Loader::meet() {
  if (!listening_ || !inspected_) return;
  if (!work_->idle()) {  // it asks how far LISTEN is
    meet_again_ns_ = boot_ns();
    return;
  }
  assert(listen_->idle());
  work_step_ =
      "a notification sent by the reading connection was not heard by the listening one, as each"
      " heartbeat has to be. Both must reach the same server, and keep it: point `conninfo` at the"
      " server itself, or at a pooler in session mode, not at a load balancer or a pooler in"
      " transaction or statement mode";
  meet_again_ns_ = kNoDeadline;
  work_deadline_ns_ = boot_ns() + std::min(kMeetingDeadline, database_.refresh.barrier_deadline_ns);
  meeting_ = random_hex(16);
  work_->send(notify_sql(), {heartbeat_channel_, meeting_},
              {.copy_data = {}, .rows = {}, .done = {}, .refused = [this](const PgQueryError& e) {
                 meeting_refused(e);
               }});
}

// Where the notification queue is full, LISTEN is what costs most: it is not given up for that.
void Loader::meeting_refused(const PgQueryError& error) {
  meeting_.clear();
  if (error.sqlstate() != kQueueFull) throw error;
  work_deadline_ns_ = kNoDeadline;
  meet_again_ns_ = boot_ns() + kSecond;
  set_trouble(std::string(kQueueIsFull) + kWhoHoldsTheQueue, /*queue_in_the_way=*/true);
}

// At the start: looks every source up in the catalogue, one after the other, and ends it if one
// cannot be served.
void Loader::inspect(std::size_t index) {
  if (index == sources_.size()) {
    std::vector<LintFinding> found;
    for (const auto& source : sources_) {
      for (LintFinding& problem : problems(source->settings.config, source->facts)) {
        problem.text = "source \"" + source->settings.config.name + "\": " + problem.text;
        found.push_back(std::move(problem));
      }
    }
    if (!found.empty()) {
      {
        const std::lock_guard lock(mutex_);
        unready_ = Unready{found, /*final=*/true};
      }
      throw PgError(numbered(found.front()));
    }
    inspected();
    return;
  }
  Source& source = *sources_[index];
  work_step_ = "`time_zone` of source \"" + source.status.name + "\", \"" +
               printable(source.settings.config.time_zone) +
               "\", must be one that PostgreSQL knows, such as \"UTC\" or \"Europe/Oslo\"";
  const auto look_up = [this, index] {
    look_up_table(index, [this, index] { inspect(index + 1); });
  };
  work_->send(time_zone_sql(source.settings.config),
              {.copy_data = {}, .rows = {}, .done = look_up});
}

void Loader::inspected() {
  inspected_ = true;
  work_deadline_ns_ = kNoDeadline;  // until they meet, the other one's counts
  meet();
}

// What the catalogue says of the table now, then `done`.
void Loader::look_up_table(std::size_t index, std::function<void()> done) {
  Source& source = *sources_[index];
  work_step_ = "looking up the table of source \"" + source.status.name + "\"";
  const std::string encoding = work_->server_encoding();
  const bool as_stored = is_read_as_stored(encoding);
  work_->send(inspect_sql(source.settings.config, configs(), side_rights_.subscriptions, as_stored),
              {.copy_data = {},
               .rows =
                   [&source, encoding, as_stored](const PgRows& rows) {
                     std::string text(rows.value(0, 0));
                     if (as_stored) text = catalogue_text(text, encoding);
                     read_answer("the look-up of the table",
                                 [&] { source.facts = TableFacts::from_json(text); });
                     source.version_reloaded.reset();  // it may come back, and be news again
                   },
               .done = std::move(done),
               .refused = refusal_handler(index),
               .what = "the look-up of the table"});
}

// ---- the barrier

// First the listening connection asks for the state of the tables: its session is the only one that
// touches none of them, so nobody's code can have answered instead. Then, when it has nothing to do
// any more, another connection sends the nonce.
void Loader::send_barrier(std::uint64_t number) {
  assert(listen_->idle());
  barrier_number_ = number;
  nonce_.clear();
  nonce_back_ = false;
  barrier_sent_ns_ = boot_ns();
  listen_->execute(kHeartbeat, {},
                   {.copy_data = {},
                    .rows = [this](const PgRows& rows) { take_heartbeat(rows); },
                    .done =
                        [this] {
                          echo_wanted_ns_ = boot_ns();
                          refresh_.barrier_held();
                        },
                    .what = "the heartbeat"});
}

void Loader::take_heartbeat(const PgRows& rows) {
  rows.expect_columns(4);
  read_answer("the heartbeat", [&] { take_versions(rows.value(0, 0)); });
  history_.reached({.inserted = read_lsn(rows, 1), .flushed = read_lsn(rows, 2)});
  const auto text = rows.field(0, 3);
  const double usage = text ? number_or_fail(*text) : -1;
  if (usage >= kQueueUsageWarning) {
    set_trouble("PostgreSQL's notification queue is " + percent(usage) +
                " full. Once it is full, nobody can commit a change of keys." + kWhoHoldsTheQueue);
  }
  const std::lock_guard lock(mutex_);
  status_.queue_usage = usage;
}

// The nonce goes over the reading connection, or, while that is busy for long, over one of its own.
void Loader::turn_echo() {
  if (echo_wanted_ns_ != 0 && work_->idle()) echo_over_work();
  try {
    turn_echo_lane(boot_ns());
  } catch (const PgError& error) {
    // No worse than without it: the reading connection will be free some day.
    spdlog::debug("database \"{}\": no connection for heartbeats: {}", database_.name,
                  error.what());
    echo_lane_.reset();
    no_echo_lane_before_ns_ = boot_ns() + kSecond;
    if (!std::exchange(echo_by_lane_, false)) return;
    nonce_.clear();
    refresh_.barrier_refused(boot_ns());
  }
}

void Loader::turn_echo_lane(std::int64_t now_ns) {
  if (echo_lane_) echo_lane_->advance(now_ns);
  if (echo_wanted_ns_ == 0) return;
  if (echo_lane_) {
    if (echo_lane_->ready()) echo_over_lane();
    return;
  }
  const std::int64_t patience_ns = database_.bound_ns / (audit_ ? 2 : kEchoPatience);
  if (now_ns < std::max(echo_wanted_ns_ + patience_ns, no_echo_lane_before_ns_)) return;
  if (last_used_.busy()) return;
  if (audit_) {
    fail_audit(audit_->source(),
               "a table is read meanwhile, and the heartbeat needs the third connection");
  }
  last_used_.disconnect();
  echo_lane_.emplace(database_.target, listen_->server(), now_ns);
}

void Loader::echo_over_work() {
  echo_lane_.reset();
  echo_wanted_ns_ = 0;
  nonce_ = random_hex(16);
  echoing_ = true;
  refresh_.barrier_went(boot_ns());
  work_->send(notify_sql(), {heartbeat_channel_, nonce_},
              {.copy_data = {},
               .rows = {},
               .done = [this] { echo_sent(); },
               .refused =
                   [this](const PgQueryError& error) {
                     echo_refused(error);
                     echo_sent();
                   },
               .what = "the heartbeat's notification"});
}

// A reading that has become due meanwhile begins.
void Loader::echo_sent() {
  echoing_ = false;
  if (const auto next = std::exchange(after_echo_, nullptr)) next();
}

void Loader::echo_over_lane() {
  echo_wanted_ns_ = 0;
  nonce_ = random_hex(16);
  echo_by_lane_ = true;
  refresh_.barrier_went(boot_ns());
  echo_lane_->send(heartbeat_channel_, nonce_,
                   [this](const PgQueryError& error) { echo_refused(error); });
}

// The connections are well, so they are kept: those that come back after a full queue would have to
// pass it.
void Loader::echo_refused(const PgQueryError& error) {
  nonce_.clear();
  echo_by_lane_ = false;
  const bool full = error.sqlstate() == kQueueFull;
  set_trouble(full ? std::string(kQueueIsFull) + kWhoHoldsTheQueue
                   : std::string("the heartbeat's notification: ") + error.what(),
              full);
  refresh_.barrier_refused(boot_ns());
}

void Loader::set_trouble(const std::string& what, bool queue_in_the_way) {
  std::optional<std::string> more;
  {
    const std::lock_guard lock(mutex_);
    if (status_.trouble.empty() && !what.empty()) more = trouble_limit_.tell(boot_ns());
    status_.trouble = what;
    status_.queue_in_the_way = queue_in_the_way;
  }
  if (more) spdlog::warn("database \"{}\": {}{}", database_.name, what, *more);
}

// A table whose triggers or files are not as they were when it was looked up may have changed
// without a word. What this barrier proves then has to wait until the table has been read again.
//
// That load looks the table up before it reads it. So rows are never older than the version that is
// kept with them: what changes in between costs another load. And as long as a load is wanted or
// under way, nothing is proven, though the version kept may be the new one already.
void Loader::take_versions(std::string_view text) {
  const std::vector<std::string> versions = versions_from_json(text, sources_.size());
  for (std::size_t i = 0; i < sources_.size(); ++i) {
    Source& source = *sources_[i];
    const std::string& version = versions[i];
    if (version == source.facts.version || version == source.version_reloaded) continue;
    source.version_reloaded = version;
    refresh_.reload(i, LoadReason::kTableChanged);
  }
}

void Loader::barrier_back() {
  nonce_.clear();
  nonce_back_ = echo_by_lane_ = false;
  double usage = 0;
  {
    const std::lock_guard lock(mutex_);
    ++status_.barriers;
    status_.barrier_us = (boot_ns() - barrier_sent_ns_) / 1000;
    usage = status_.queue_usage;
  }
  if (usage < kQueueUsageWarning) set_trouble("");
  refresh_.barrier_returned(barrier_number_);
}

// Whoever does not read what was notified holds back PostgreSQL's queue. So all that is there is
// taken first, and looked at later.
void Loader::drain_notifications() {
  const std::int64_t until_ns = boot_ns() + kDrainFor;
  for (;;) {
    bool heard = false;
    while (const auto notification = listen_->next_notification()) {
      heard = true;
      hear(*notification);
    }
    // What has been read is parsed before more is: libpq doubles a buffer that it finds full.
    if (!heard || boot_ns() >= until_ns) break;
    listen_->advance();
  }
  const std::lock_guard lock(mutex_);
  status_.notifications = notifications_;
  status_.malformed_notifications = malformed_notifications_;
}

void Loader::hear(const PgNotification& notification) {
  const std::string_view payload = notification.payload;
  if (notification.channel == heartbeat_channel_) {
    const bool awaited = (!nonce_.empty() && payload == nonce_) ||
                         (!meeting_.empty() && payload == meeting_) ||
                         (audit_ && audit_->awaits(payload));
    if (awaited) notices_.push_own(payload);
    return;
  }
  ++notifications_;
  const bool readable = is_ascii(payload) || listen_->server_encoding() == "UTF8";
  const NoticeQueue::Pushed pushed =
      readable ? notices_.push_change(payload) : notices_.push_unreadable(payload);
  // Not from a trigger of ours, or of a table that is no source.
  if (pushed == NoticeQueue::Pushed::kMalformed) ++malformed_notifications_;
}

void Loader::take_notices() {
  const std::int64_t until_ns = boot_ns() + kTakeFor;
  while (auto notice = notices_.pop()) {
    if (const auto* own = std::get_if<NoticeQueue::Own>(&*notice)) {
      take_own(own->payload);
    } else if (const auto* change = std::get_if<NoticeQueue::Change>(&*notice)) {
      take_change(*change);
    } else {
      const std::size_t table = std::get<NoticeQueue::TooMany>(*notice).table;
      for (const std::size_t i : sources_of_[table]) take_too_many(i);
    }
    if (boot_ns() >= until_ns) break;
  }
}

void Loader::take_own(const std::string& payload) {
  if (!nonce_.empty() && payload == nonce_) nonce_back_ = true;
  if (!meeting_.empty() && payload == meeting_) met_ = true;
  if (audit_) audit_->heard(payload);
}

void Loader::take_change(const NoticeQueue::Change& change) {
  const auto notice = ChangeNotice::parse(change.payload);
  if (!notice) {
    ++malformed_notifications_;
    const std::lock_guard lock(mutex_);
    status_.malformed_notifications = malformed_notifications_;
    return;
  }
  for (const std::size_t i : sources_of_[change.table]) {
    if (notice->truncated && sources_[i]->facts.files_tell) {
      refresh_.doubted();  // the next barrier tells
    } else if (notice->truncated) {
      refresh_.notified_all(i);
    } else if (notice->reload) {
      take_too_many(i);
    } else {
      take_ids(i, notice->ids);
    }
  }
}

// What no trigger would have sent is counted. Either somebody forged it, or ids are of another type
// now: then the next look at the tables shows it, and has the table read anew. So nothing is lost.
void Loader::take_ids(std::size_t index, const std::vector<std::string>& named) {
  Source& source = *sources_[index];
  const SourceConfig& config = source.settings.config;
  std::vector<std::string> ids;
  for (const std::string& told : named) {
    const std::string id(id_as_read(config, source.facts, told));
    if (id_may_not_convert(config, source.facts, id)) {
      refresh_.notified_all(index);
    } else if (is_notified_id(id) && is_id(config, source.facts, id)) {
      if (audit_ && audit_->source() == index) audit_->audit().told_of(id);
      ids.push_back(id);
    } else {
      ++source.status.malformed_ids;
      refresh_.doubted();
    }
  }
  if (ids.empty()) return;
  if (source.told_ns == 0) source.told_ns = boot_ns();
  refresh_.notified(index, std::move(ids));
}

// More rows have changed, or other ones, than were named.
void Loader::take_too_many(std::size_t index) {
  if (audit_ && audit_->source() == index) audit_->audit().told_of_many();
  refresh_.notified_many(index);
}

// ---- loads

namespace {

// What is new about a source since `before`; not the same lines with every load. Whoever writes
// rows or owns the table can have them come and go.
void log_findings(const std::string& source, LogLimits& limits,
                  const std::vector<LintFinding>& before, const std::vector<LintFinding>& now) {
  const std::int64_t now_ns = boot_ns();
  for (const LintFinding& finding : news(before, now)) {
    const auto level = finding.severity() == Severity::kError     ? spdlog::level::err
                       : finding.severity() == Severity::kWarning ? spdlog::level::warn
                                                                  : spdlog::level::info;
    const auto more = limits.tell("new " + std::string(finding.number()), now_ns);
    if (more) spdlog::log(level, "source \"{}\": {}{}", source, numbered(finding), *more);
  }
  for (const LintFinding& finding : gone(before, now)) {
    const auto more = limits.tell("gone " + std::string(finding.number()), now_ns);
    if (!more) continue;
    spdlog::info("source \"{}\": {}: {} is no longer so{}", source, finding.number(),
                 finding.name(), *more);
  }
}

CopyReader::Fields wire_row(const PgRows& rows, int index, std::size_t fields) {
  CopyReader::Fields row(fields);
  for (std::size_t i = 0; i < fields; ++i) row[i] = rows.field(index, static_cast<int>(i));
  return row;
}

}  // namespace

// Before each load the table is looked up again: a trigger that somebody dropped while we ran is
// reported by the next audit, not by silence.
void Loader::load(std::size_t index, LoadReason reason) {
  if (echoing_) {
    after_echo_ = [this, index, reason] { load(index, reason); };
    return;
  }
  Source& source = *sources_[index];
  source.load_reason = reason;
  work_deadline_ns_ = boot_ns() + kStepDeadline;
  look_up_table(index, [this, index] {
    Source& looked_up = *sources_[index];
    std::vector<LintFinding> found = problems(looked_up.settings.config, looked_up.facts);
    if (!found.empty() && !ready_) throw PgError(numbered(found.front()));
    // Without its triggers a table can still be read: then what is known is as old as the reading.
    if (!std::ranges::all_of(found,
                             [](const LintFinding& f) { return is_about_triggers(f.lint); })) {
      suspend(index, std::move(found));
      return;
    }
    looked_up.status.polled = !found.empty();
    report_problems(looked_up, std::move(found),
                    "until this is mended the whole table is read again and again, and its answers"
                    " are as old as the last reading");
    looked_up.make_reader();
    serve_owner(looked_up, [this, index] { copy(index); });
  });
}

// Has the reading session made new if it has read another owner's table, then `done`.
void Loader::serve_owner(const Source& source, const std::function<void()>& done) {
  const auto before = session_owner_.before(source.status.name, source.facts);
  if (std::ranges::find(before, kDiscardAll) != before.end()) forget_prepared();
  send_each(before, 0, done);
}

void Loader::forget_prepared() {
  for (const auto& source : sources_) source->prepared.clear();
}

void Loader::send_each(const std::vector<std::string>& statements, std::size_t from,
                       const std::function<void()>& done) {
  if (from == statements.size()) {
    done();
    return;
  }
  work_->send(statements[from],
              {.copy_data = {}, .rows = {}, .done = [this, statements, from, done] {
                 send_each(statements, from + 1, done);
               }});
}

// Said when it is new, not at each attempt.
void Loader::report_problems(Source& source, std::vector<LintFinding> found,
                             std::string_view until_then) {
  const std::vector<LintFinding>& before = source.status.problems;
  log_findings(source.status.name, source.log_limits, before, found);
  if (before.empty() && !found.empty()) {
    if (const auto more = source.log_limits.tell(std::string(until_then), boot_ns())) {
      spdlog::error("source \"{}\": {}{}", source.status.name, until_then, *more);
    }
  } else if (!before.empty() && found.empty()) {
    if (const auto more = source.log_limits.tell("followed again", boot_ns())) {
      spdlog::info("source \"{}\": followed again{}", source.status.name, *more);
    }
  }
  source.status.problems = std::move(found);
}

// Its table cannot be followed as it is. Other sources go on; its own answers age, and the policy
// tries again soon.
void Loader::suspend(std::size_t index, std::vector<LintFinding> why) {
  Source& source = *sources_[index];
  source.abandon_load();
  if (audit_ && audit_->source() == index) audit_->audit().spoil();
  report_problems(source, std::move(why),
                  "until this is mended its answers grow old: they are not fresh, and past"
                  " `max_stale` there are none");
  source.status.polled = false;
  source.status.suspended = true;
  work_deadline_ns_ = kNoDeadline;
  refresh_.work_refused(boot_ns());
}

std::function<void(const PgQueryError&)> Loader::refusal_handler(std::size_t index) {
  return [this, index](const PgQueryError& error) {
    const bool changed = error.sqlstate() == kLayoutChanged || error.sqlstate() == kPlanOutdated;
    if (changed && ++sources_[index]->refused_in_a_row < kRaces) {
      overtaken(index);
      return;
    }
    // While it starts, whoever starts it wants to know.
    if (!ready_) throw error;
    suspend(index, {{Lint::kQueryRefused, 0, "", work_step_ + ": " + error.what()}});
  };
}

// Somebody changed the table between the look-up and the reading.
void Loader::overtaken(std::size_t index) {
  Source& source = *sources_[index];
  source.abandon_load();
  if (audit_ && audit_->source() == index) audit_->audit().spoil();
  work_deadline_ns_ = kNoDeadline;
  refresh_.work_overtaken(boot_ns());
}

void Loader::copy(std::size_t index) {
  Source& source = *sources_[index];
  work_step_ = "loading source \"" + source.status.name + "\"";
  if (source.settings.keys->freshness.ever_proven()) {
    source.writer.begin_load();
  } else {
    source.writer.begin_first_load(rows_to_expect(source.facts.rows_estimated));
  }
  source.unusable.begin_load();
  if (audit_ && audit_->source() == index) audit_->audit().spoil();
  source.copy.emplace(source.decoder->fields().size());
  source.lint.emplace(source.settings.config, read_clocks().real_us);
  source.load_since_ns = boot_ns();
  source.told_ns = source.asked_ns = 0;  // that is for rows that are read by id
  source.status.loading = true;
  source.status.load_rows = 0;
  source.status.rows_expected = source.facts.rows_estimated;
  work_deadline_ns_ = source.load_since_ns + kLoadSilence;
  work_->send(load_sql(source.settings.config, source.facts),
              {.copy_data =
                   [this, &source](std::span<const std::string_view> messages) {
                     work_deadline_ns_ = boot_ns() + kLoadSilence;
                     source.take(messages);
                   },
               .rows = {},
               .done = [this, index] { load_done(index); },
               .refused = refusal_handler(index),
               .what = "the load of a table"});
}

void Loader::load_done(std::size_t index) {
  Source& source = *sources_[index];
  // What has not come is not gone.
  if (!source.copy->ended()) throw PgError(work_step_ + ": the COPY broke off before its end");
  const LoadReport report = source.writer.finish_load();
  source.unusable.finish_load();
  const std::int64_t now_ns = boot_ns();
  seen(source, source.load_since_ns);
  source.status.loading = false;
  source.status.suspended = false;
  source.status.load_seconds = seconds(now_ns - source.load_since_ns);
  source.status.oddities = source.lint->oddities();
  if (source.last_used) {
    const auto odd = static_cast<std::size_t>(Oddity::kUseTimeUnit);
    last_used_.hold(*source.last_used, source.status.oddities.at(odd) > 0);
  }
  source.refused_in_a_row = 0;
  ++source.status.loads;
  ++source.status.loads_by_reason[static_cast<std::size_t>(source.load_reason)];
  work_deadline_ns_ = kNoDeadline;
  // Others can have a table read again and again: by a notification, by what they do to the table.
  const std::string loaded = std::string("loaded: ") + load_reason_name(source.load_reason);
  if (const auto more = source.log_limits.tell(loaded, now_ns)) {
    spdlog::info("source \"{}\": loaded {} rows in {:.2f} s ({} new, {} changed, {} gone){}",
                 source.status.name, source.status.load_rows, source.status.load_seconds,
                 report.added, report.changed, report.removed, *more);
  }
  if (source.writer.rows() == 0 && report.removed > 0) {
    if (const auto more = source.log_limits.tell("empty", now_ns)) {
      spdlog::warn("source \"{}\": all its keys are gone: table {} is empty now{}",
                   source.status.name, source.settings.config.table.display(), *more);
    }
  }
  std::vector<LintFinding> found =
      source.lint->findings(source.writer.rows(), source.writer.ambiguous_digests());
  std::ranges::move(catalogue_findings(source.settings.config, source.facts),
                    std::back_inserter(found));
  // What the last walk through other sources found stands until the next one is through.
  std::ranges::copy_if(source.status.findings, std::back_inserter(found),
                       [](const LintFinding& f) { return f.lint == Lint::kKeyInSeveralSources; });
  if (auto missing = missing_rights(side_rights_)) found.push_back(std::move(*missing));
  set_findings(source, std::move(found));
  if (!source.settings.alike.empty()) {
    source.overlap.emplace(source.writer, source.settings.alike);
    if (!std::exchange(source.status.comparing, true)) compare_sources(index);
  }
  publish_status();  // whoever learns that we are ready finds what was found
  if (!source.status.polled) {
    refresh_.work_done(now_ns);
    return;
  }
  // What had committed before the table was read is in force, and nobody tells of what came later.
  stamp(source, source.load_since_ns);
  refresh_.work_refused(now_ns);
}

// A part of the source at a time, between other things: it takes a second for ten million rows.
void Loader::compare_sources(std::size_t index) {
  Source& source = *sources_[index];
  if (source.overlap->step(quiescence_)) {
    post([this, index] { compare_sources(index); });
    return;
  }
  std::vector<LintFinding> found = overlap_findings(source.overlap->shared());
  std::ranges::copy_if(source.status.findings, std::back_inserter(found),
                       [](const LintFinding& f) { return f.lint != Lint::kKeyInSeveralSources; });
  set_findings(source, std::move(found));
  source.overlap.reset();
  source.status.comparing = false;
  publish_status();
  changed_.notify_all();
}

void Loader::set_findings(Source& source, std::vector<LintFinding> found) {
  std::ranges::stable_sort(found, {}, &LintFinding::lint);
  log_findings(source.status.name, source.log_limits, source.status.findings, found);
  source.status.findings = std::move(found);
}

// ---- single rows

void Loader::reread(std::size_t index, std::vector<std::string> ids) {
  if (echoing_) {
    after_echo_ = [this, index, ids = std::move(ids)] { reread(index, ids); };
    return;
  }
  Source& source = *sources_[index];
  if (source.told_ns != 0) source.asked_ns = std::exchange(source.told_ns, 0);
  work_step_ = "reading changed rows of source \"" + source.status.name + "\"";
  source.status.rereads += ids.size();
  work_deadline_ns_ = boot_ns() + kStepDeadline;
  serve_owner(source, [this, index, ids = std::move(ids)] { read_rows(index, ids); });
}

// To plan the question takes PostgreSQL longer than all else about one changed row, so it is asked
// to keep the plan for as long as the question stays the same. Not if the table has become twice as
// large, though: a plan that was made for an empty one reads all of it, until somebody has it
// analyzed.
void Loader::read_rows(std::size_t index, const std::vector<std::string>& ids) {
  Source& source = *sources_[index];
  const std::string sql = reread_sql(source.settings.config, source.facts);
  const bool fits = source.writer.rows() <= kGrown + 2 * source.prepared_rows;
  if (source.prepared == sql && fits) return read_prepared(index, ids);
  const auto prepare = [this, index, ids, sql] {
    work_->prepare(reread_name(index), sql,
                   {.copy_data = {},
                    .rows = {},
                    .done =
                        [this, index, ids, sql] {
                          sources_[index]->prepared = sql;
                          sources_[index]->prepared_rows = sources_[index]->writer.rows();
                          read_prepared(index, ids);
                        },
                    .refused = refusal_handler(index),
                    .what = "the preparation of reading changed rows"});
  };
  if (source.prepared.empty()) return prepare();
  source.prepared.clear();
  // Whoever owns the table may have had it taken away meanwhile; then there is nothing to forget.
  work_->send("DEALLOCATE " + reread_name(index),
              {.copy_data = {},
               .rows = {},
               .done = prepare,
               .refused = [prepare](const PgQueryError&) { prepare(); },
               .what = "the forgetting of a question"});
}

void Loader::read_prepared(std::size_t index, const std::vector<std::string>& ids) {
  Source& source = *sources_[index];
  work_->execute(
      reread_name(index), {array_literal(ids)},
      {.copy_data = {},
       .rows = [this, index, ids](const PgRows& rows) { apply_reread(index, rows, ids); },
       .done =
           [this, index, &source] {
             const std::int64_t now_ns = boot_ns();
             if (source.asked_ns != 0) {
               source.status.change_delays.add(now_ns - std::exchange(source.asked_ns, 0));
             }
             work_deadline_ns_ = kNoDeadline;
             if (std::exchange(source.overtaken, false)) {
               overtaken(index);
             } else {
               refresh_.work_done(now_ns);
             }
           },
       .refused =
           [this, index](const PgQueryError& error) {
             sources_[index]->prepared = kOutdated;
             refusal_handler(index)(error);
           },
       .what = "the reading of changed rows"});
}

void Loader::apply_reread(std::size_t index, const PgRows& rows,
                          const std::vector<std::string>& ids) {
  Source& source = *sources_[index];
  OddityCounts oddities{};
  std::vector<RecordFacts> good, refused;
  std::unordered_set<std::string_view> found;
  for (const std::string& id : ids) source.unusable.erase(id);
  const std::size_t width = source.decoder->fields().size();
  std::vector<std::uint32_t> types;
  for (const WireField& field : source.decoder->fields()) types.push_back(field.type);
  if (!rows.are_of_types(types)) {
    source.overtaken = true;
    return;
  }
  std::vector<CopyReader::Fields> fields;
  for (int i = 0; i < rows.rows(); ++i) fields.push_back(wire_row(rows, i, width));
  source.wire.assign(fields.begin(), fields.end());
  source.hashes.resize(fields.size());
  source.hasher(source.decoder->fields(), source.wire, source.hashes);
  std::vector<RowDecoder::Texts> texts(fields.size());
  for (std::size_t i = 0; i < fields.size(); ++i) {
    RowView row;
    source.decoder->decode(fields[i], texts[i], row);
    RowMeaning meaning = source.reader->read(row);
    meaning.odd.count_in(oddities);
    auto& facts = meaning.facts;
    const std::uint64_t hash = source.hashes[i];
    // (No notification names an id that is too long for an answer: is_notified_id().)
    if (!facts || facts->id_is_made_up) {
      if (row[kFieldId] && row[kFieldKey]) source.unusable.set(*row[kFieldId], hash);
      continue;
    }
    facts->row_hash = hash;
    (facts->state == RowState::kActive ? good : refused).push_back(*facts);
    found.emplace(facts->key_id);
  }
  if (source.last_used && oddities.at(static_cast<std::size_t>(Oddity::kUseTimeUnit)) > 0) {
    last_used_.hold(*source.last_used, true);
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
  log_oddities(source, oddities);
}

// Of changed rows. One odd row, told of again and again, must not fill the log.
void Loader::log_oddities(Source& source, const OddityCounts& counts) {
  for (std::size_t i = 0; i < kOddities; ++i) {
    if (counts[i] == 0) continue;
    const auto oddity = static_cast<Oddity>(i);
    const auto more = source.log_limits.tell(oddity_name(oddity), boot_ns(), counts[i]);
    if (!more) continue;
    spdlog::warn("source \"{}\": {}: {} changed rows: {}: {}{}", source.status.name,
                 rule_of(lint_of(oddity)).number, counts[i], oddity_name(oddity),
                 oddity_sentence(oddity), *more);
  }
}

// ---- audits

void Loader::audit(std::size_t index) {
  if (audit_) {
    audit_->look_closer(boot_ns());
  } else {
    audit_wanted_ = index;
  }
}

// At most three connections a database: the third one is either this or writes the last uses.
void Loader::begin_audit() {
  if (!audit_wanted_ || last_used_.busy() || echo_lane_) return;
  last_used_.disconnect();
  const std::size_t index = *std::exchange(audit_wanted_, std::nullopt);
  const Source& source = *sources_[index];
  try {
    audit_.emplace(
        AuditLane::Terms{.source = index,
                         .config = source.settings.config,
                         .facts = source.facts,
                         .channel = heartbeat_channel_,
                         .patience_ns = std::max(kAuditPatience, database_.refresh.audit_ns)},
        database_.target, listen_->server(), boot_ns());
  } catch (const PgError& error) {
    fail_audit(index, error.what());
  }
}

void Loader::turn_audit() {
  begin_audit();
  if (!audit_) return;
  try {
    if (audit_->advance(boot_ns())) refresh_.audit_returned();
  } catch (const std::exception& error) {
    fail_audit(audit_->source(), error.what());
  }
}

void Loader::compare(std::size_t index) {
  Source& source = *sources_[index];
  const std::int64_t now_ns = boot_ns();
  const Audit& audit = audit_->audit();
  const Audit::Outcome outcome = audit_->audit().compare(source.writer, source.unusable);
  if (outcome == Audit::Outcome::kLookCloser) {
    refresh_.audit_again();
    return;
  }
  if (outcome == Audit::Outcome::kUnsure) {
    ++source.status.audits_unsure;
    if (!audit.spoiled()) audit_undecided(index);
  } else {
    source.undecided.decided();
    ++source.status.audits;
    source.status.audited_boot_ns = now_ns;
    source.status.audit_seconds = seconds(now_ns - audit_->since_ns());
  }
  if (outcome == Audit::Outcome::kAgrees) seen(source, audit_->begun_ns());
  if (outcome == Audit::Outcome::kDiffers) {
    ++source.status.audit_mismatches;
    spdlog::error(
        "source \"{}\": AUDIT: {} rows of {} are not what they were told to be (id {}): something"
        " changed them without firing the triggers, such as a statement that addressed a"
        " partition, or logical replication. The table is read anew.",
        source.status.name, audit.differing(), source.settings.config.table.display(),
        audit.named().empty() ? "not known"
                              : printable(fmt::format("{}", fmt::join(audit.named(), ", "))));
    refresh_.reload(index, LoadReason::kAuditFound);
  }
  source.status.audits_undecided_in_a_row = source.undecided.in_a_row();
  audit_.reset();
  refresh_.audit_done();
}

// The whole table has been compared, or read.
void Loader::seen(Source& source, std::int64_t begun_ns) {
  SourceStatus& status = source.status;
  if (status.seen_boot_ns != 0) {
    status.unseen_max_ns = std::max(status.unseen_max_ns, boot_ns() - status.seen_boot_ns);
  }
  status.seen_boot_ns = begun_ns;
}

// A load decides instead.
void Loader::audit_undecided(std::size_t index) {
  Source& source = *sources_[index];
  if (source.undecided.add()) {
    spdlog::error(
        "source \"{}\": {} audits in a row could not tell whether something bypasses the triggers:"
        " more rows were told of meanwhile than can be kept apart. The table is read anew each time"
        " instead. If it does not change that much, somebody forges notifications: see who is"
        " connected to database \"{}\".",
        source.status.name, source.undecided.in_a_row(), database_.name);
  }
  refresh_.reload(index, LoadReason::kAuditUnsure);
}

void Loader::fail_audit(std::size_t index, const std::string& why) {
  Source& source = *sources_[index];
  ++source.status.audits_failed;
  spdlog::warn(
      "source \"{}\": the audit could not be made: {}. Changes are followed all the same; the next"
      " audit comes in its time.",
      source.status.name, why);
  audit_.reset();
  refresh_.audit_failed();
}

// ---- proofs, failures, status

// What had committed before `proven_ns` is in force for this source.
void Loader::stamp(Source& source, std::int64_t proven_ns) {
  FreshnessStamp& freshness = source.settings.keys->freshness;
  const std::int64_t now_ns = boot_ns();
  if (freshness.age_ns(now_ns) > database_.bound_ns) source.status.fresh_since_boot_ns = now_ns;
  freshness.prove(proven_ns);
}

void Loader::prove(const Refresh::Prove& prove) {
  for (const std::size_t index : prove.sources) stamp(*sources_[index], prove.boot_ns);
  for (const std::uint64_t sync : prove.syncs) {
    const auto found = syncs_.find(sync);
    if (found == syncs_.end()) continue;
    const std::function<void()> done = std::move(found->second);
    syncs_.erase(found);
    done();
  }
  // Sources are proven one by one.
  if (refresh_.state() != Refresh::State::kLive) return;
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
  const bool others = try_next_server();
  refresh_.failed(boot_ns(), others);
  {
    const std::lock_guard lock(mutex_);
    ++status_.failures;
    if (!others) ++status_.rounds_failed;
    // Said once for each new trouble, not at each attempt. The same trouble may come back as often
    // as somebody causes it.
    if (status_.last_error != why || status_.state == Refresh::State::kLive) {
      if (status_.last_error != why) failure_limit_ = {};
      if (const auto more = failure_limit_.tell(boot_ns())) {
        spdlog::error("database \"{}\": {}{}", database_.name, why, *more);
      }
    }
    status_.last_error = why;
    status_.last_error_boot_ns = boot_ns();
    if (!ready_ && !(unready_ && unready_->final)) {
      unready_ = Unready{{{.lint = Lint::kDatabase,
                           .count = 0,
                           .about = database_.name,
                           .text = "database \"" + database_.name + "\": " + why + advice}},
                         final};
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
  audit_.reset();
  echo_lane_.reset();
  set_trouble("");
  audit_wanted_.reset();
  for (const auto& source : sources_) source->abandon_load();
}

void Loader::publish_status() {
  const std::lock_guard lock(mutex_);
  const Refresh::State state = refresh_.state();
  if (state != status_.state) {
    if (state == Refresh::State::kLive) {
      if (const auto more = live_limit_.tell(boot_ns())) {
        spdlog::info("database \"{}\": in step, listening for changes{}", database_.name, *more);
      }
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
    if (source.status.loading) {
      source.status.load_seconds = seconds(boot_ns() - source.load_since_ns);
    }
    source.status.ambiguous = source.writer.ambiguous_digests();
    source.status.memory = source.writer.memory();
    if (source.last_used) source.status.last_used = last_used_.counts(*source.last_used);
    status_.sources[i] = source.status;
  }
}

}  // namespace latchkey
