// The commands that ask the daemon for answers: verify, sync, ping.

#include <algorithm>
#include <cmath>
#include <iostream>
#include <nlohmann/json.hpp>

#include "client/commands.h"
#include "client/connection.h"
#include "client/question.h"
#include "client/text.h"

namespace latchkey {
namespace {

using nlohmann::ordered_json;

double milliseconds_since(std::chrono::steady_clock::time_point start) {
  const std::chrono::duration<double, std::milli> passed = std::chrono::steady_clock::now() - start;
  return std::round(passed.count() * 1000) / 1000;
}

// ---- answers

// RFC 7662 names; what is not known is not there.
ordered_json to_json(const Answer& answer) {
  const Claims& claims = answer.claims;
  ordered_json json = {{"active", answer.verdict == LATCHKEY_VALID},
                       {"verdict", verdict_name(answer.verdict)}};
  const auto add = [&json](const char* name, std::string_view value) {
    if (!value.empty()) json[name] = value;
  };
  add("source", claims.source);
  add("key_id", claims.key_id);
  add("sub", claims.subject);
  add("tenant", claims.tenant);
  if (claims.has_scope) json["scope"] = claims.scope;
  if (claims.expires) json["exp"] = *claims.expires;
  add("metadata", claims.metadata);
  json["fresh"] = answer.fresh;
  if (answer.age_ms != LATCHKEY_AGE_UNKNOWN) json["age_ms"] = answer.age_ms;
  return json;
}

std::string to_line(const Answer& answer) {
  const Claims& claims = answer.claims;
  std::string line = verdict_name(answer.verdict);
  line.resize(std::max<std::size_t>(line.size(), 18), ' ');
  const auto add = [&line](const char* name, const std::string& value) {
    if (!value.empty()) line += std::string(" ") + name + "=" + value;
  };
  add("source", std::string(claims.source));
  add("key_id", std::string(claims.key_id));
  add("sub", std::string(claims.subject));
  add("tenant", std::string(claims.tenant));
  if (claims.has_scope) add("scope", "\"" + std::string(claims.scope) + "\"");
  if (claims.expires) add("exp", utc(*claims.expires));
  add("metadata", std::string(claims.metadata));
  if (answer.age_ms != LATCHKEY_AGE_UNKNOWN) {
    line += std::string(answer.fresh ? " fresh" : " NOT FRESH") +
            " age=" + std::to_string(answer.age_ms) + "ms";
  }
  return line;
}

}  // namespace

int run_verify(const CommonSettings& common, const VerifySettings& settings) {
  const VerifyTerms terms = terms_of(settings);
  Connection connection(common.socket, common.timeout);
  KeyReader reader;
  OutBuffer request;
  std::uint64_t request_id = 0;
  std::vector<Answer> answers;
  bool all_active = true;
  bool all_answered = true;
  for (;;) {
    const auto keys = reader.next(LATCHKEY_REQUEST_BYTES_MAX - verify_overhead(terms));
    if (keys.empty()) break;
    encode_verify(request, ++request_id, terms, keys);
    const Frame reply = connection.exchange(request, request_id, LATCHKEY_VERIFIED);
    if (decode_verified(reply.body, answers) || answers.size() != keys.size()) {
      throw NoAnswer("the daemon's reply cannot be understood");
    }
    for (const Answer& answer : answers) {
      all_active = all_active && answer.verdict == LATCHKEY_VALID;
      all_answered = all_answered && answer.verdict != LATCHKEY_UNAVAILABLE;
      std::cout << (common.json ? to_json(answer).dump(-1, ' ', false,
                                                       ordered_json::error_handler_t::replace)
                                : printable(to_line(answer)))
                << '\n';
    }
    std::cout.flush();
  }
  if (request_id == 0) throw UsageError{"no key on standard input (one a line)"};
  if (!all_answered) return kExitNoAnswer;
  return all_active ? kExitAllActive : kExitSomeInactive;
}

int run_sync(const CommonSettings& common, std::chrono::milliseconds timeout) {
  if (timeout.count() < 1 || timeout.count() > LATCHKEY_SYNC_TIMEOUT_MS_MAX) {
    throw UsageError{"--timeout must be 1ms to 60s"};
  }
  const auto start = std::chrono::steady_clock::now();
  Connection connection(common.socket, common.timeout);
  OutBuffer request;
  encode_sync(request, 1, static_cast<std::uint32_t>(timeout.count()));
  const Frame reply = connection.exchange(request, 1, LATCHKEY_SYNCED, timeout);
  std::uint64_t waited_us = 0;
  if (decode_synced(reply.body, waited_us))
    throw NoAnswer("the daemon's reply cannot be understood");
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
  Connection connection(common.socket, common.timeout);
  OutBuffer request;
  encode_ping(request, 1);
  const Frame reply = connection.exchange(request, 1, LATCHKEY_PONG);
  if (decode_empty(reply.body)) throw NoAnswer("the daemon's reply cannot be understood");
  const double elapsed = milliseconds_since(start);
  if (common.json) {
    std::cout << ordered_json{{"alive", true}, {"elapsed_ms", elapsed}} << '\n';
  } else {
    std::cout << "latchkeyd on " << common.socket << " answers (after " << elapsed << " ms).\n";
  }
  return kExitAllActive;
}

}  // namespace latchkey
