// latchkey top: shows the status repeatedly, with rates. It uses ncurses on a terminal, and
// scrolling text elsewhere and with --plain.

#include <curses.h>
#include <poll.h>
#include <term.h>
// ncurses defines these words as macros.
#undef columns
#undef lines
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <clocale>
#include <csignal>
#include <cstdlib>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>

#include "base/printable.h"
#include "tool/commands.h"
#include "tool/connection.h"
#include "tool/report.h"
#include "tool/top_screen.h"

namespace latchkey {
namespace {

using nlohmann::ordered_json;
using Clock = std::chrono::steady_clock;

// Asks for reports on one connection, and reconnects after it is lost.
class Reports {
 public:
  explicit Reports(const CommonSettings& common) : common_(common) {}

  // Throws NoAnswer. The previous report stays for comparison, unless another daemon answers.
  void ask() {
    ordered_json report;
    try {
      if (!connection_) connection_.emplace(common_.socket, common_.timeout);
      report = connection_->status();
    } catch (const NoAnswer&) {
      connection_.reset();
      throw;
    }
    const auto now = Clock::now();
    const bool same = last_ && last_->value("pid", 0LL) == report.value("pid", 0LL);
    before_ = same ? std::exchange(last_, std::nullopt) : std::nullopt;
    seconds_ = std::chrono::duration<double>(now - asked_at_).count();
    last_ = std::move(report);
    asked_at_ = now;
  }
  // Empty before the first answer.
  [[nodiscard]] std::vector<ScreenLine> lines(std::size_t columns) const {
    if (!last_) return {};
    return top_screen(
        {.now = &*last_, .before = before_ ? &*before_ : nullptr, .seconds = seconds_}, columns);
  }

 private:
  const CommonSettings& common_;
  std::optional<Connection> connection_;
  std::optional<ordered_json> last_, before_;
  Clock::time_point asked_at_{};
  double seconds_ = 0;
};

// ^C is the normal way to leave, not a failure.
std::atomic<bool> interrupted{false};
static_assert(std::atomic<bool>::is_always_lock_free, "set by a signal handler");

void stop_on_interrupt() {
  struct sigaction action {};
  action.sa_handler = [](int) { interrupted = true; };
  sigaction(SIGINT, &action, nullptr);  // without SA_RESTART: poll() and getch() return
}

// ---- scrolling text

constexpr std::size_t kPlainColumns = 100;

int run_plain(Reports& reports, const TopSettings& top) {
  int code = kExitAllActive;
  for (std::uint64_t shown = 0; top.count == 0 || shown < top.count; ++shown) {
    if (shown > 0) {
      poll(nullptr, 0, static_cast<int>(top.interval.count()));
      if (interrupted) return kExitAllActive;
      std::cout << '\n';
    }
    try {
      reports.ask();
      code = kExitAllActive;
      for (const ScreenLine& line : reports.lines(kPlainColumns)) std::cout << line.text << '\n';
    } catch (const NoAnswer& error) {
      code = kExitNoAnswer;
      std::cout << "NO ANSWER: " << printable(error.what()) << '\n';
    }
    if (!std::cout.flush()) return kExitNoAnswer;  // the output has no reader any more
  }
  return code;
}

// ---- a terminal

class Terminal {
 public:
  Terminal() {
    // setupterm() is called first, because a newterm() that fails leaks memory.
    int answer = 0;
    const bool known = setupterm(nullptr, STDOUT_FILENO, &answer) == OK;
    if (known) del_curterm(cur_term);
    if (!known || newterm(nullptr, stdout, stdin) == nullptr) {
      throw UsageError{"this terminal cannot be drawn on (TERM=" +
                       std::string(std::getenv("TERM") != nullptr ? std::getenv("TERM") : "") +
                       "). --plain prints text that scrolls."};
    }
    cbreak();
    noecho();
    curs_set(0);
    keypad(stdscr, TRUE);
    if (has_colors()) {
      start_color();
      use_default_colors();
      init_pair(kRed, COLOR_RED, -1);
    }
  }
  ~Terminal() { endwin(); }
  Terminal(const Terminal&) = delete;
  Terminal& operator=(const Terminal&) = delete;

  [[nodiscard]] static std::size_t columns() { return static_cast<std::size_t>(COLS); }

  static void show(const std::vector<ScreenLine>& lines, const std::string& trouble, bool paused,
                   std::chrono::milliseconds interval) {
    erase();
    int row = 0;
    if (!trouble.empty()) put(row++, "NO ANSWER, trying again: " + trouble, red());
    for (const ScreenLine& line : lines) {
      if (row >= LINES - 1) break;
      put(row++, line.text, attributes(line.look));
    }
    const std::string every = std::to_string(static_cast<double>(interval.count()) / 1000);
    put(LINES - 1,
        std::string(paused ? "PAUSED  " : "") + "q quit  p pause  + - interval (" +
            every.substr(0, every.find('.') + 2) + " s)",
        A_DIM);
    refresh();
  }
  // Waits for a key; returns ERR after `patience`.
  [[nodiscard]] static int key(std::chrono::milliseconds patience) {
    timeout(static_cast<int>(patience.count()));
    return getch();
  }

 private:
  static constexpr short kRed = 1;
  static attr_t red() { return A_BOLD | (has_colors() ? COLOR_PAIR(kRed) : 0); }
  static attr_t attributes(ScreenLine::Look look) {
    switch (look) {
      case ScreenLine::Look::kTitle: return A_BOLD;
      case ScreenLine::Look::kHeading: return A_REVERSE;
      case ScreenLine::Look::kTrouble: return red();
      case ScreenLine::Look::kPlain: break;
    }
    return A_NORMAL;
  }
  static void put(int row, const std::string& text, attr_t attributes) {
    attrset(static_cast<int>(attributes));
    mvaddnstr(row, 0, printable(text).c_str(), COLS);
    attrset(A_NORMAL);
  }
};

int run_screen(Reports& reports, TopSettings top) {
  const Terminal terminal;
  std::string trouble;
  bool paused = false;
  auto next = Clock::now();
  for (;;) {
    const auto now = Clock::now();
    if (!paused && now >= next) {
      try {
        reports.ask();
        trouble.clear();
      } catch (const NoAnswer& error) {
        trouble = error.what();
      }
      next = now + top.interval;
    }
    Terminal::show(reports.lines(Terminal::columns()), trouble, paused, top.interval);
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(next - Clock::now());
    const int key = Terminal::key(paused ? std::chrono::milliseconds(1000) : std::max(left, {}));
    if (interrupted || key == 'q' || key == 'Q' || key == 3) return kExitAllActive;
    if (key == ERR && errno != EINTR && isatty(STDIN_FILENO) == 0) return kExitNoAnswer;
    if (key == 'p' || key == ' ') paused = !paused;
    if (key == '+') top.interval = std::min(top.interval * 2, kTopIntervalMax);
    if (key == '-') top.interval = std::max(top.interval / 2, kTopIntervalMin);
  }
}

}  // namespace

int run_top(const CommonSettings& common, const TopSettings& top) {
  Reports reports(common);
  stop_on_interrupt();
  const char* term = std::getenv("TERM");
  const bool dumb = term == nullptr || std::string_view(term) == "dumb" || *term == '\0';
  if (top.plain || top.count > 0 || dumb || isatty(STDOUT_FILENO) == 0) {
    return run_plain(reports, top);
  }
  std::setlocale(LC_CTYPE, "");  // for ncurses to draw characters of several bytes
  return run_screen(reports, top);
}

}  // namespace latchkey
