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
#include <array>
#include <new>
#include <system_error>
#include <utility>
#include <variant>

#include "base/clock.h"
#include "loader/postgres/session_setup.h"

namespace latchkey {
namespace {

constexpr int kNiceness = 10;
// Longest wait, so that the watchdog sees the thread run.
constexpr std::int64_t kTickEvery = kSecond;
// A stuck worker is reported at once, and then at this interval.
constexpr std::int64_t kStallLogEvery = 60 * kSecond;

std::uint64_t random_seed() {
  std::uint64_t seed = 0;
  if (RAND_bytes(reinterpret_cast<unsigned char*>(&seed), sizeof seed) != 1) {
    throw std::runtime_error("no randomness");
  }
  return seed;
}

template <typename... Cases>
struct Visitor : Cases... {
  using Cases::operator()...;
};

}  // namespace

Loader::Loader(DatabaseConfig database, std::vector<LoaderSource> sources, Quiescence& quiescence)
    : followed_(std::move(database), std::move(sources), quiescence, random_seed(), boot_ns()),
      hosts_(hosts_of(followed_.config.target.conninfo)),
      ticked_ns_(awake_ns()),
      wake_fd_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  if (wake_fd_ < 0) throw std::system_error(errno, std::generic_category(), "eventfd");
  followed_.post = [this](std::function<void()> task) { post(std::move(task)); };
  for (const auto& source : followed_.sources) {
    if (UseLog* uses = source->uses()) uses->on_half_full([this] { wake(); });
  }
  followed_.publish_status(boot_ns());
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
  // For `top -H` and debuggers; the kernel limits the name to 15 characters.
  pthread_setname_np(thread_.native_handle(), ("load " + database()).substr(0, 15).c_str());
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
    const std::lock_guard lock(posted_mutex_);
    posted_.push_back(std::move(task));
  }
  wake();
}

// Neither blocks nor allocates: workers call it.
void Loader::wake() const {
  const std::uint64_t one = 1;
  // The write fails only if the counter is at its limit, and then the thread is awake anyway.
  [[maybe_unused]] const ssize_t written = write(wake_fd_, &one, sizeof one);
}

std::uint64_t Loader::sync(std::function<void()> done) {
  const std::uint64_t id = next_sync_++;
  post([this, id, done = std::move(done)]() mutable {
    syncs_.emplace(id, std::move(done));
    followed_.refresh.sync_wanted(id);
  });
  return id;
}

void Loader::abandon_sync(std::uint64_t id) {
  post([this, id] {
    syncs_.erase(id);
    followed_.refresh.sync_abandoned(id);
  });
}

void Loader::set_pepper_versions(const std::string& name,
                                 std::unordered_set<std::string> versions) {
  post([this, name, versions = std::move(versions)]() mutable {
    for (const auto& source : followed_.sources) {
      if (source->config().name != name) continue;
      source->set_pepper_versions(std::move(versions));
      return;
    }
  });
}

// ---- the thread

void Loader::run() {
  // Answers have priority: on scarce processors a load must not make callers wait. (On Linux a nice
  // value belongs to the thread, setpriority(2); the cost is a slower load.)
  setpriority(PRIO_PROCESS, static_cast<id_t>(gettid()), kNiceness);
  while (!stopping_) {
    ticked_ns_ = awake_ns();
    run_posted();
    act();
    if (!third_in_use()) followed_.last_used.turn(boot_ns(), alive());
    collect();
  }
  followed_.last_used.finish(alive());
  disconnect();
}

void Loader::run_posted() {
  std::vector<std::function<void()>> tasks;
  {
    const std::lock_guard lock(posted_mutex_);
    tasks.swap(posted_);
  }
  for (const auto& task : tasks) task();
}

// Does all work that is possible now, then waits once.
void Loader::act() {
  try {
    const std::int64_t until_ns = carry_out_all();
    followed_.publish_status(boot_ns());
    wait(until_ns);
    if (link_) link_->turn();
  } catch (const PgConnectError& error) {
    fail(std::string("cannot connect: ") + error.what(),
         ". Check `conninfo` (host, port, dbname, user) and `password_file`, that the server runs"
         " and accepts this role (`latchkey sql grant` prints what makes it), and that it is not a"
         " standby.");
  } catch (const PgQueryError& error) {
    // A refused catalogue query will be refused again in a second.
    fail(error.what(), "", /*final=*/link_ && link_->shaking_hands());
  } catch (const PgError& error) {
    fail(error.what());
  } catch (const std::bad_alloc&) {
    fail("not enough memory for the keys",
         ". A load takes about 150 bytes a key, and as much again for those that have changed. Give"
         " latchkeyd more (systemd: MemoryMax=), or the host.");
  } catch (const std::exception& error) {
    // The row or catalogue is malformed. Keep the known keys and retry later.
    fail(std::string("unexpected answer of the database: ") + error.what());
  }
}

// Returns the time until which there is nothing to do.
std::int64_t Loader::carry_out_all() {
  for (;;) {
    const Refresh::Action action = followed_.refresh.next(boot_ns());
    if (const auto* wait = std::get_if<Refresh::Wait>(&action)) return wait->until_ns;
    carry_out(action);
  }
}

void Loader::carry_out(const Refresh::Action& action) {
  std::visit(
      Visitor{
          [](const Refresh::Wait&) {},
          [this](const Refresh::Connect&) { connect(); },
          [this](const Refresh::SendBarrier& task) { link_->heartbeat().begin(task.number); },
          [this](const Refresh::Load& task) { link_->reading().load(task.source, task.reason); },
          [this](const Refresh::Reread& task) { link_->reading().reread(task.source, task.ids); },
          [this](const Refresh::Prove& task) { prove(task); },
          [this](const Refresh::Audit& task) { link_->auditing().audit(task.source); },
          [this](const Refresh::Compare& task) { link_->auditing().compare(task.source); },
          [this](const Refresh::Disconnect& task) { fail(task.why); },
      },
      action);
}

void Loader::wait(std::int64_t until_ns) {
  const std::int64_t now_ns = boot_ns();
  std::array<pollfd, 5> fds{};
  std::size_t count = 0;
  fds.at(count++) = {wake_fd_, POLLIN, 0};
  if (link_) {
    const Link::Waits waits = link_->waits(now_ns);
    until_ns = std::min(until_ns, waits.until_ns);
    for (std::size_t i = 0; i < waits.count; ++i) fds.at(count++) = waits.sockets.at(i);
  }
  if (!third_in_use()) {
    const LastUsedWriter& last_used = followed_.last_used;
    if (last_used.socket() >= 0) fds.at(count++) = {last_used.socket(), last_used.events(), 0};
    until_ns = std::min(until_ns, last_used.next_ns());
  }
  const std::int64_t left_ns = std::clamp<std::int64_t>(until_ns - now_ns, 0, kTickEvery);
  const timespec timeout{.tv_sec = left_ns / kSecond, .tv_nsec = left_ns % kSecond};
  ppoll(fds.data(), count, &timeout, nullptr);
  if ((fds[0].revents & POLLIN) != 0) {
    std::uint64_t wakes = 0;
    [[maybe_unused]] const ssize_t got = read(wake_fd_, &wakes, sizeof wakes);
  }
}

// ---- memory that waits for readers

// Frees records that no worker can hold any more, and reports the workers that block freeing.
void Loader::collect() {
  std::optional<std::uint64_t> oldest;
  std::size_t waiting = 0;
  for (const auto& source : followed_.sources) {
    source->writer().collect();
    waiting += source->writer().memory().waiting;
    const auto stamp = source->writer().oldest_retired();
    if (stamp && (!oldest || *stamp < *oldest)) oldest = stamp;
  }
  const auto stall = stall_watch_.look(followed_.quiescence, oldest, awake_ns());
  report_stall(stall, waiting, oldest && !followed_.quiescence.holders_of(*oldest).empty());
}

// `any`: a worker holds records back.
void Loader::report_stall(const std::optional<StallWatch::Stall>& stall, std::size_t waiting,
                          bool any) {
  followed_.board.update([&](LoaderStatus& status) {
    if (stall) {
      if (stall->readers != status.stalled_readers ||
          stall->for_ns > stall_logged_ns_ + kStallLogEvery) {
        stall_logged_ns_ = stall->for_ns;
        spdlog::warn(
            "{} stuck in one batch for {:.1f} s: {} bytes of outdated records cannot be freed, and"
            " memory grows with each change. A batch takes microseconds. If it does not go on by"
            " itself (it may have been stopped, by a debugger for instance), restart latchkeyd.",
            fmt::join(stall->readers, ", "), to_seconds(stall->for_ns), waiting);
      }
      status.stalled_readers = stall->readers;
      status.stalled_ns = stall->for_ns;
    } else if (!status.stalled_readers.empty() && !any) {
      spdlog::info("all workers go on: outdated records are freed again");
      status.stalled_readers.clear();
      status.stalled_ns = 0;
    }
  });
}

// ---- connecting

void Loader::connect() {
  followed_.host = hosts_[host_].display();
  const auto show = [this](const PgHost& host) {
    followed_.board.update([&](LoaderStatus& status) { status.host = host.display(); });
  };
  followed_.board.update([](LoaderStatus& status) { ++status.connects; });
  show(hosts_[host_]);
  if (addresses_.empty()) addresses_ = addresses_of(hosts_[host_]);
  const PgHost& server = addresses_[address_];
  if (addresses_.size() > 1) show(server);
  link_ = std::make_unique<Link>(followed_, server, boot_ns());
}

// Advances to the next address of the host, then to the next host. Returns false if this pass has
// tried all of them.
bool Loader::try_next_server() {
  if (address_ + 1 < addresses_.size()) {
    ++address_;
    return true;
  }
  addresses_.clear();  // resolve again: a failover may be a change in the DNS
  address_ = 0;
  host_ = (host_ + 1) % hosts_.size();
  return host_ != 0;
}

void Loader::fail(const std::string& why, const std::string& advice, bool final) {
  disconnect();
  const bool others = try_next_server();
  const std::int64_t now_ns = boot_ns();
  followed_.refresh.failed(now_ns, others);
  followed_.board.failed(why, advice, final, others, now_ns);
}

void Loader::disconnect() {
  followed_.last_used.disconnect();  // the next link may lead to another server
  link_.reset();
  followed_.board.set_trouble("", false, boot_ns());
  for (const auto& source : followed_.sources) source->abandon_load();
}

const PgConnection* Loader::alive() const {
  return link_ && followed_.refresh.state() == Refresh::State::kLive ? &link_->listening()
                                                                     : nullptr;
}

// ---- proofs

void Loader::prove(const Refresh::Prove& prove) {
  const std::int64_t now_ns = boot_ns();
  for (const std::size_t index : prove.sources) {
    followed_.sources[index]->prove(prove.boot_ns, now_ns, followed_.config.bound_ns);
  }
  for (const std::uint64_t sync : prove.syncs) {
    const auto found = syncs_.find(sync);
    if (found == syncs_.end()) continue;
    const std::function<void()> done = std::move(found->second);
    syncs_.erase(found);
    done();
  }
  // Each source is proven separately.
  if (followed_.refresh.state() != Refresh::State::kLive || !followed_.board.set_ready()) return;
  followed_.publish_status(now_ns);
  followed_.board.notify();
}

}  // namespace latchkey
