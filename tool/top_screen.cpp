#include "tool/top_screen.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <sstream>

#include "tool/report.h"
#include "tool/text.h"

namespace latchkey {
namespace {

using nlohmann::ordered_json;
using Look = ScreenLine::Look;

const ordered_json kNothing = ordered_json::object();
const ordered_json kNoList = ordered_json::array();

const ordered_json& part(const ordered_json& object, const char* name, const ordered_json& none) {
  const auto found = object.find(name);
  return found != object.end() && found->type() == none.type() ? *found : none;
}

// The object of the earlier report that corresponds to `now`.
const ordered_json& same(const ordered_json& list, const ordered_json& now, const char* name) {
  for (const ordered_json& before : list) {
    if (before.is_object() && before.contains(name) && before[name] == now[name]) return before;
  }
  return kNothing;
}

std::string right(std::string text, std::size_t width) {
  return std::string(width > text.size() ? width - text.size() : 0, ' ') + text;
}

class Screen {
 public:
  Screen(const TopInputs& inputs, std::size_t columns)
      : now_(*inputs.now),
        before_(inputs.before != nullptr ? *inputs.before : kNothing),
        compared_(inputs.before != nullptr && inputs.seconds > 0),
        seconds_(inputs.seconds),
        columns_(columns) {}

  std::vector<ScreenLine> lines() {
    title();
    if (!now_.contains("verdicts")) {
      sources();
      add("");
      add("This user is not told more: `reasons = true` and all sources in [[allow]] are needed.");
      return std::move(lines_);
    }
    answers();
    sources();
    databases();
    connections();
    callers();
    memory();
    return std::move(lines_);
  }

 private:
  void add(const std::string& text, Look look = Look::kPlain) {
    std::string line = printable(text);
    line.resize(std::min(line.find_last_not_of(' ') + 1, columns_));
    lines_.push_back({printable(line), look});  // again: the cut may be within a character
  }

  double count(const ordered_json& object, const char* name) const {
    const auto found = object.find(name);
    return found != object.end() && found->is_number() ? found->get<double>() : 0;
  }
  // The rate of a counter between two reports on the same object.
  std::string rate(const ordered_json& now, const ordered_json& before, const char* name) const {
    if (!compared_ || !before.contains(name)) return "-";
    const auto found = per_second(count(before, name), count(now, name), seconds_);
    return found ? short_number(*found) : "-";
  }

  void title() {
    const auto trouble = report_troubles(now_);
    add(report_title(now_), Look::kTitle);
    if (trouble.empty()) add("Every source is fresh.");
    for (const Trouble& one : trouble) {
      // The text is not cut, because the cause is often at its end.
      std::istringstream text(
          wrapped("! " + one.what + (one.more.empty() ? "" : ": "), one.more, 4));
      for (std::string line; std::getline(text, line);) add(line, Look::kTrouble);
    }
  }

  void answers() {
    const ordered_json& verdicts = part(now_, "verdicts", kNothing);
    const ordered_json& earlier = part(before_, "verdicts", kNothing);
    add("");
    add(column("ANSWERS", 22) + right("A SECOND", 12) + right("IN ALL", 12), Look::kHeading);
    add(column("requests", 22) + right(rate(now_, before_, "requests"), 12) +
        right(short_number(count(now_, "requests")), 12) + latency());
    for (const auto& [verdict, total] : verdicts.items()) {
      if (!total.is_number() || total == 0) continue;
      add(column(verdict, 22) + right(rate(verdicts, earlier, verdict.c_str()), 12) +
          right(short_number(total.get<double>()), 12));
    }
    if (const double errors = count(now_, "protocol_errors"); errors > 0) {
      add(column("protocol errors", 22) + right(rate(now_, before_, "protocol_errors"), 12) +
          right(short_number(errors), 12));
    }
  }

  // The latency since the previous report, or since the daemon's start if there is none.
  std::string latency() const {
    const ordered_json& now = part(now_, "answer_time", kNothing);
    const ordered_json& before = part(before_, "answer_time", kNothing);
    if (!now.contains("le_s") || !now.contains("counts")) return "";
    const auto bounds = now["le_s"].get<std::vector<double>>();
    auto counts = now["counts"].get<std::vector<double>>();
    if (before.contains("counts")) {
      const auto earlier = before["counts"].get<std::vector<double>>();
      for (std::size_t i = 0; i < std::min(counts.size(), earlier.size()); ++i) {
        counts[i] = std::max(0.0, counts[i] - earlier[i]);
      }
    }
    const auto half = quantile_s(bounds, counts, 0.5), most = quantile_s(bounds, counts, 0.99);
    if (!half || !most) return "";
    return "   half within " + fine_span(*half) + ", 99% within " + fine_span(*most);
  }

  static std::string fine_span(double seconds) {
    if (std::isinf(seconds)) return "more than can be told";
    if (seconds >= 1e-3) return span_text(seconds);
    return std::to_string(static_cast<int>(seconds * 1e6 + 0.5)) + "us";
  }

  void sources() {
    const ordered_json& earlier = part(before_, "sources", kNoList);
    add("");
    add(column("SOURCE", 20) + column("STATE", 12) + right("SINCE", 8) + right("AGE", 8) +
            right("KEYS", 8) + right("VALID/S", 9) + right("ROWS/S", 8) + right("LOADS", 7),
        Look::kHeading);
    for (const ordered_json& source : part(now_, "sources", kNoList)) {
      const ordered_json& before = same(earlier, source, "name");
      const std::string state = source.value("state", "");
      const std::string since =
          source.contains("since_s") ? span_text(count(source, "since_s")) : "-";
      const std::string age =
          source.contains("age_ms") ? span_text(count(source, "age_ms") / 1000) : "never";
      const std::string keys = source.contains("keys") ? short_number(count(source, "keys")) : "-";
      add(column(source.value("name", ""), 20) + column(state, 12) + right(since, 8) +
              right(age, 8) + right(keys, 8) + right(rate(source, before, "accepted"), 9) +
              right(rate(source, before, "rereads"), 8) +
              right(short_number(count(source, "loads")), 7),
          state == "fresh" ? Look::kPlain : Look::kTrouble);
    }
  }

  void databases() {
    const ordered_json& earlier = part(before_, "databases", kNoList);
    add("");
    add(column("DATABASE", 20) + column("STATE", 12) + right("SINCE", 8) + right("HEARTBEAT", 11) +
            right("CONNECTS", 10) + right("TOLD/S", 9) + right("WAITING", 9),
        Look::kHeading);
    for (const ordered_json& database : part(now_, "databases", kNoList)) {
      const std::string state = database.value("state", "");
      add(column(database.value("name", ""), 20) + column(state, 12) +
              right(span_text(count(database, "since_s")), 8) +
              right(fine_span(count(database, "heartbeat_us") / 1e6), 11) +
              right(short_number(count(database, "connects")), 10) +
              right(rate(database, same(earlier, database, "name"), "notifications"), 9) +
              right(short_number(count(database, "pending_ids")), 9),
          state == "live" ? Look::kPlain : Look::kTrouble);
    }
  }

  void connections() {
    const ordered_json& now = part(now_, "connections", kNothing);
    const ordered_json& earlier = part(before_, "connections", kNothing);
    add("");
    add("CONNECTIONS", Look::kHeading);
    add(short_number(count(now, "open")) + " open, " + rate(now, earlier, "accepted") +
        " a second accepted");
    std::string closed;
    bool lately = false;
    for (const auto& [name, total] : now.items()) {
      if (name == "open" || name == "accepted" || !total.is_number() || total == 0) continue;
      const std::string speed = rate(now, earlier, name.c_str());
      lately = lately || (speed != "0" && speed != "-");
      std::string words = name;
      std::ranges::replace(words, '_', ' ');
      closed += (closed.empty() ? "" : ", ") + words + " " + short_number(total.get<double>()) +
                " (" + speed + "/s)";
    }
    if (!closed.empty()) add(closed, lately ? Look::kTrouble : Look::kPlain);
  }

  // The callers with the most unusual activity come first.
  void callers() {
    std::vector<const ordered_json*> list;
    for (const ordered_json& caller : part(now_, "callers", kNoList)) list.push_back(&caller);
    if (list.empty()) return;
    const ordered_json& earlier = part(before_, "callers", kNoList);
    const auto lately = [&](const ordered_json& caller, const char* name) {
      return count(caller, name) - count(same(earlier, caller, "uid"), name);
    };
    std::ranges::sort(list, [&](const auto* a, const auto* b) {
      const auto order = [&](const ordered_json& caller) {
        return std::array{lately(caller, "unknown_keys"), lately(caller, "refused"),
                          count(caller, "connections")};
      };
      return order(*a) > order(*b);
    });
    add("");
    add(column("CALLER", 14) + right("CONNECTIONS", 12) + right("UNKNOWN/S", 11) +
            right("UNKNOWN", 10) + right("REFUSED/S", 11) + right("REFUSED", 10) +
            right("WAITING", 10),
        Look::kHeading);
    for (const ordered_json* caller : list) {
      const ordered_json& before = same(earlier, *caller, "uid");
      add(column("uid " + std::to_string(caller->value("uid", 0LL)), 14) +
          right(short_number(count(*caller, "connections")), 12) +
          right(rate(*caller, before, "unknown_keys"), 11) +
          right(short_number(count(*caller, "unknown_keys")), 10) +
          right(rate(*caller, before, "refused"), 11) +
          right(short_number(count(*caller, "refused")), 10) +
          right(short_number(count(*caller, "waiting_bytes")) + "B", 10));
    }
  }

  void memory() {
    double bytes = 0;
    for (const ordered_json& source : part(now_, "sources", kNoList)) {
      for (const auto& [name, size] : part(source, "memory_bytes", kNothing).items()) {
        if (name != "waiting" && size.is_number()) bytes += size.get<double>();
      }
    }
    add("");
    add("memory for keys: " + short_number(bytes) + "B");
  }

  const ordered_json& now_;
  const ordered_json& before_;
  const bool compared_;
  const double seconds_;
  const std::size_t columns_;
  std::vector<ScreenLine> lines_;
};

}  // namespace

std::vector<ScreenLine> top_screen(const TopInputs& inputs, std::size_t columns) {
  try {
    return Screen(inputs, columns).lines();
  } catch (const ordered_json::exception&) {
    // The report comes from a latchkeyd of another version.
    return {{std::string("The report of this latchkeyd cannot be understood.").substr(0, columns),
             Look::kTrouble}};
  }
}

std::optional<double> per_second(double before, double now, double seconds) {
  if (now < before || !(seconds > 0)) return std::nullopt;
  return (now - before) / seconds;
}

std::optional<double> quantile_s(const std::vector<double>& le_s, const std::vector<double>& counts,
                                 double share) {
  double all = 0;
  for (const double count : counts) all += count;
  if (all <= 0 || le_s.empty()) return std::nullopt;
  double below = 0;
  for (std::size_t i = 0; i < std::min(le_s.size(), counts.size()); ++i) {
    below += counts[i];
    if (below >= share * all) return le_s[i];
  }
  return std::numeric_limits<double>::infinity();
}

}  // namespace latchkey
