// Measures the time from COMMIT's return to the changed verdict, and for comparison the time of a
// minimal program that does the same: LISTEN, and read the one row that a notification names.
//
// One run measures both in turns, on two tables of the same shape. latchkeyd follows one table; the
// other has its own trigger on its own channel, to which latchkeyd does not listen. Each round
// toggles one row of each table. The clock starts when the UPDATE's COMMIT has returned to the
// client. Latchkey's clock ends when a reply with the new verdict has arrived over the Unix socket.
// (The client asks without pause, so a delay includes half a round trip of asking too early.) The
// bare listener's clock ends when it has the row's new value.
//
//   latchkey_delay_bench CONNINFO SOCKET KEY ROUNDS
//
// Prints JSON: for each of the two, microseconds at percentiles. Fails on a wrong verdict, that is,
// a change that is not visible within five seconds.
#include <libpq-fe.h>
#include <poll.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "latchkey/client.h"
#include "protocol/codec.h"

namespace latchkey {
namespace {

using Clock = std::chrono::steady_clock;
constexpr std::chrono::seconds kDeadline(5);

[[noreturn]] void give_up(const std::string& why) {
  std::fprintf(stderr, "latchkey_delay_bench: %s\n", why.c_str());
  std::exit(1);
}

class Database {
 public:
  explicit Database(const char* conninfo) : connection_(PQconnectdb(conninfo), PQfinish) {
    if (PQstatus(connection_.get()) != CONNECTION_OK) give_up(PQerrorMessage(connection_.get()));
  }
  // Returns the first field, if there is one.
  std::string run(const char* sql) {
    const std::unique_ptr<PGresult, void (*)(PGresult*)> result(PQexec(connection_.get(), sql),
                                                                PQclear);
    const ExecStatusType status = PQresultStatus(result.get());
    if (status != PGRES_COMMAND_OK && status != PGRES_TUPLES_OK) {
      give_up(PQerrorMessage(connection_.get()));
    }
    return PQntuples(result.get()) > 0 ? PQgetvalue(result.get(), 0, 0) : "";
  }
  void wait_notification() {
    for (;;) {
      if (PGnotify* notify = PQnotifies(connection_.get())) {
        PQfreemem(notify);
        return;
      }
      pollfd ready{PQsocket(connection_.get()), POLLIN, 0};
      if (poll(&ready, 1, static_cast<int>(kDeadline.count()) * 1000) != 1) {
        give_up("the bare listener was not notified");
      }
      if (PQconsumeInput(connection_.get()) == 0) give_up(PQerrorMessage(connection_.get()));
    }
  }

 private:
  std::unique_ptr<PGconn, void (*)(PGconn*)> connection_;
};

double us(Clock::duration duration) {
  return std::chrono::duration<double, std::micro>(duration).count();
}

// LISTEN and one re-read, on a thread of its own as in a separate program.
class BareListener {
 public:
  BareListener(const char* conninfo, int rounds)
      : thread_([this, conninfo, rounds] {
          Database database(conninfo);
          database.run("LISTEN bare");
          ready_.store(true);
          for (int round = 0; round < rounds; ++round) {
            database.wait_notification();
            const std::string value =
                database.run("SELECT revoked_at IS NULL FROM bare WHERE id = 1");
            if (value != (round % 2 == 0 ? "f" : "t")) give_up("the bare listener read an old row");
            seen_.store(Clock::now().time_since_epoch().count());
            rounds_.store(round + 1);
          }
        }) {
    while (!ready_) std::this_thread::yield();
  }
  ~BareListener() { thread_.join(); }
  // The time at which the listener saw the change of this round.
  Clock::time_point wait(int round) const {
    const auto deadline = Clock::now() + kDeadline;
    while (rounds_.load() <= round) {
      if (Clock::now() > deadline) give_up("the bare listener saw nothing");
      std::this_thread::yield();
    }
    return Clock::time_point(Clock::duration(seen_.load()));
  }

 private:
  std::atomic<bool> ready_{false};
  std::atomic<int> rounds_{0};
  std::atomic<Clock::rep> seen_{0};
  std::thread thread_;
};

Clock::time_point wait_verdict(latchkey_client* daemon, std::string_view key,
                               latchkey_verdict expected) {
  const auto deadline = Clock::now() + kDeadline;
  for (;;) {
    latchkey_answer answer;
    const int verdict = latchkey_verify(daemon, key.data(), key.size(), nullptr, &answer);
    const auto now = Clock::now();
    if (verdict < 0) give_up(latchkey_error_text(daemon));
    if (verdict == static_cast<int>(expected)) return now;
    if (now > deadline) give_up("the verdict did not change");
  }
}

void print(const char* name, std::vector<double> delays, const char* end) {
  std::ranges::sort(delays);
  const auto at = [&](double part) {
    return delays[std::min(delays.size() - 1,
                           static_cast<std::size_t>(part * double(delays.size())))];
  };
  std::printf(
      "  \"%s\": {\"p50_us\": %.1f, \"p90_us\": %.1f, \"p99_us\": %.1f, \"max_us\": %.1f}%s\n",
      name, at(0.5), at(0.9), at(0.99), delays.back(), end);
}

int run(const char* conninfo, const char* socket, const char* key, int rounds) {
  Database writer(conninfo);
  const std::unique_ptr<latchkey_client, decltype(&latchkey_close)> opened(latchkey_open(socket),
                                                                           &latchkey_close);
  latchkey_client* const daemon = opened.get();
  if (daemon == nullptr) give_up("the socket's path is too long");
  latchkey_set_timeout(daemon, 5000);
  wait_verdict(daemon, key, LATCHKEY_VALID);
  std::vector<double> latchkey, bare;
  {
    const BareListener listener(conninfo, rounds);
    for (int round = 0; round < rounds; ++round) {
      const bool revoke = round % 2 == 0;
      writer.run(revoke ? "UPDATE bare SET revoked_at = now() WHERE id = 1"
                        : "UPDATE bare SET revoked_at = NULL WHERE id = 1");
      auto committed = Clock::now();
      bare.push_back(std::max(0.0, us(listener.wait(round) - committed)));

      writer.run(revoke ? "UPDATE followed SET revoked_at = now() WHERE id = 1"
                        : "UPDATE followed SET revoked_at = NULL WHERE id = 1");
      committed = Clock::now();
      const auto changed = wait_verdict(daemon, key, revoke ? LATCHKEY_REVOKED : LATCHKEY_VALID);
      latchkey.push_back(us(changed - committed));
    }
  }
  std::printf("{\n  \"rounds\": %d,\n", rounds);
  print("bare_listener", bare, ",");
  print("latchkey", latchkey, "");
  std::printf("}\n");
  return 0;
}

}  // namespace
}  // namespace latchkey

int main(int argc, char** argv) {
  if (argc != 5) latchkey::give_up("CONNINFO SOCKET KEY ROUNDS");
  try {
    return latchkey::run(argv[1], argv[2], argv[3], std::max(2, std::atoi(argv[4])));
  } catch (const std::exception& error) {
    latchkey::give_up(error.what());
  }
}
