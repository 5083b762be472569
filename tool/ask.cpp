// The commands that ask the daemon for answers: verify, sync, ping.

#include <algorithm>
#include <cmath>
#include <iostream>
#include <nlohmann/json.hpp>

#include "base/printable.h"
#include "tool/commands.h"
#include "tool/connection.h"
#include "tool/question.h"
#include "tool/text.h"

namespace latchkey {
namespace {

using nlohmann::ordered_json;

double milliseconds_since(std::chrono::steady_clock::time_point start) {
  const std::chrono::duration<double, std::milli> passed = std::chrono::steady_clock::now() - start;
  return std::round(passed.count() * 1000) / 1000;
}

// ---- answers

std::string_view text(const char* said) { return said == nullptr ? "" : said; }

// Uses the names of RFC 7662. Unknown members are omitted.
ordered_json to_json(const latchkey_answer& answer) {
  ordered_json json = {{"active", answer.verdict == LATCHKEY_VALID},
                       {"verdict", latchkey_verdict_name(answer.verdict)}};
  const auto add = [&json](const char* name, const char* said) {
    if (!text(said).empty()) json[name] = said;
  };
  add("source", answer.source);
  add("key_id", answer.key_id);
  add("sub", answer.subject);
  add("tenant", answer.tenant);
  if (answer.scope != nullptr) json["scope"] = answer.scope;
  if (answer.has_expires != 0) json["exp"] = answer.expires;
  add("metadata", answer.metadata);
  json["fresh"] = answer.fresh != 0;
  if (answer.age_ms != LATCHKEY_AGE_UNKNOWN) json["age_ms"] = answer.age_ms;
  return json;
}

std::string to_line(const latchkey_answer& answer) {
  std::string line = latchkey_verdict_name(answer.verdict);
  line.resize(std::max<std::size_t>(line.size(), 18), ' ');
  const auto add = [&line](const char* name, std::string_view value) {
    if (!value.empty()) line += std::string(" ") + name + "=" + std::string(value);
  };
  add("source", text(answer.source));
  add("key_id", text(answer.key_id));
  add("sub", text(answer.subject));
  add("tenant", text(answer.tenant));
  if (answer.scope != nullptr) add("scope", "\"" + std::string(answer.scope) + "\"");
  if (answer.has_expires != 0) add("exp", utc(answer.expires));
  add("metadata", text(answer.metadata));
  if (answer.age_ms != LATCHKEY_AGE_UNKNOWN) {
    line += std::string(answer.fresh != 0 ? " fresh" : " NOT FRESH") +
            " age=" + std::to_string(answer.age_ms) + "ms";
  }
  return line;
}

}  // namespace

int run_verify(const CommonSettings& common, const VerifySettings& settings) {
  const VerifyQuestion question(settings);
  Connection connection(common.socket, common.timeout);
  KeyReader reader;
  bool any = false, all_active = true, all_answered = true;
  for (;;) {
    const auto keys = reader.next();
    if (keys.empty()) break;
    any = true;
    for (const latchkey_answer& answer : connection.verify(question, keys)) {
      all_active = all_active && answer.verdict == LATCHKEY_VALID;
      all_answered = all_answered && answer.verdict != LATCHKEY_UNAVAILABLE;
      std::cout << (common.json ? to_json(answer).dump(-1, ' ', false,
                                                       ordered_json::error_handler_t::replace)
                                : printable(to_line(answer)))
                << '\n';
    }
    flush(std::cout);
  }
  if (!any) throw UsageError{"no key on standard input (one a line)"};
  if (!all_answered) return kExitNoAnswer;
  return all_active ? kExitAllActive : kExitSomeInactive;
}

int run_sync(const CommonSettings& common, std::chrono::milliseconds timeout) {
  if (timeout.count() < 1 || timeout.count() > LATCHKEY_SYNC_TIMEOUT_MS_MAX) {
    throw UsageError{"--timeout must be 1ms to 60s"};
  }
  const auto start = std::chrono::steady_clock::now();
  Connection(common.socket, common.timeout).sync(timeout);
  const double elapsed = milliseconds_since(start);
  if (common.json) {
    std::cout << ordered_json{{"synced", true}, {"elapsed_ms", elapsed}} << '\n';
  } else {
    std::cout << "Everything committed before this call is in force (after " << elapsed
              << " ms).\n";
  }
  return kExitAllActive;
}

int run_ping(const CommonSettings& common) {
  const auto start = std::chrono::steady_clock::now();
  Connection(common.socket, common.timeout).ping();
  const double elapsed = milliseconds_since(start);
  if (common.json) {
    std::cout << ordered_json{{"alive", true}, {"elapsed_ms", elapsed}} << '\n';
  } else {
    std::cout << "latchkeyd on " << common.socket << " answers (after " << elapsed << " ms).\n";
  }
  return kExitAllActive;
}

}  // namespace latchkey
