// The library with Boost.Asio: co_await asker.verify(key). Reads keys from standard input, one per
// line, verifies all of them concurrently, and prints the verdicts in their order.
//
//     c++ -std=c++20 asio_coroutine.cpp $(pkg-config --cflags --libs latchkey) -o asio_coroutine
//
// The library connects and reconnects; Asio only watches the library's descriptor and the time.
// (Asio itself cannot connect reliably: it takes a full backlog for success.)
#include <boost/asio/awaitable.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <iostream>
#include <latchkey/client.hpp>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <poll.h>

namespace asio = boost::asio;

// Verifies keys for the coroutines of one thread. It must outlive its requests.
class Asker {
 public:
  explicit Asker(asio::io_context& io) : io_(io), watched_(io), due_(io) {}
  ~Asker() { unwatch(); }

  asio::awaitable<latchkey::Answer> verify(std::string key) {
    Waiting waiting{asio::steady_timer(io_, asio::steady_timer::time_point::max()), {}, {}};
    const latchkey_key bytes{key.data(), key.size()};
    const int failure = latchkey_start_verify(client_.get(), nullptr, &bytes, 1, &waiting);
    if (failure != 0) {
      throw latchkey::Error(static_cast<latchkey_failure>(failure), 0,
                            latchkey_error_text(client_.get()));
    }
    step();
    // step() cancels the timer when it takes the reply; this wakes the coroutine.
    boost::system::error_code ignored;
    while (!waiting.answer && !waiting.error) {
      co_await waiting.signal.async_wait(asio::redirect_error(asio::use_awaitable, ignored));
    }
    if (waiting.error) throw *waiting.error;
    co_return *waiting.answer;
  }

 private:
  struct Waiting {
    asio::steady_timer signal;
    std::optional<latchkey::Answer> answer;
    std::optional<latchkey::Error> error;
  };

  void step() {
    latchkey_step(client_.get());
    latchkey_reply reply;
    while (latchkey_take(client_.get(), &reply) != 0) {
      auto* waiting = static_cast<Waiting*>(reply.context);
      if (reply.failure == 0) {
        waiting->answer = latchkey::owned(reply.answers[0]);
      } else {
        waiting->error.emplace(static_cast<latchkey_failure>(reply.failure), reply.refusal,
                               reply.text);
      }
      waiting->signal.cancel();
    }
    wait();
  }

  // Waits for the descriptor, which may have changed, and for the time.
  void wait() {
    unwatch();
    due_.cancel();
    if (latchkey_pending(client_.get()) == 0) return;
    const auto go_on = [this](boost::system::error_code error) {
      if (!error) step();
    };
    if (const int fd = latchkey_fd(client_.get()); fd >= 0) {
      watched_.assign(fd);
      const short events = latchkey_events(client_.get());
      if ((events & POLLIN) != 0) watched_.async_wait(watched_.wait_read, go_on);
      if ((events & POLLOUT) != 0) watched_.async_wait(watched_.wait_write, go_on);
    }
    if (const int ms = latchkey_due_ms(client_.get()); ms >= 0) {
      due_.expires_after(std::chrono::milliseconds(ms));
      due_.async_wait(go_on);
    }
  }

  // The library closes the descriptor.
  void unwatch() {
    if (watched_.is_open()) watched_.release();
  }

  asio::io_context& io_;
  latchkey::Client client_;
  asio::posix::stream_descriptor watched_;
  asio::steady_timer due_;
};

int main() {
  asio::io_context io;
  Asker asker(io);
  std::vector<std::string> verdicts;
  int failures = 0;
  for (std::string key; std::getline(std::cin, key);) {
    verdicts.emplace_back();
    asio::co_spawn(
        io,
        [](Asker& to, std::string what, std::vector<std::string>& all, std::size_t i,
           int& failed) -> asio::awaitable<void> {
          try {
            const latchkey::Answer answer = co_await to.verify(std::move(what));
            all[i] = latchkey_verdict_name(answer.verdict);
          } catch (const latchkey::Error& error) {
            all[i] = std::string("no answer: ") + error.what();
            ++failed;
          }
        }(asker, key, verdicts, verdicts.size() - 1, failures),
        asio::detached);
  }
  io.run();
  for (const std::string& verdict : verdicts) std::cout << verdict << '\n';
  return failures != 0;
}
