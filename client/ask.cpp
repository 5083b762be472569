// The commands that ask the daemon: verify, sync, ping, status.

#include <openssl/crypto.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cmath>
#include <cstdio>
#include <ctime>
#include <iostream>
#include <nlohmann/json.hpp>

#include "client/commands.h"
#include "client/connection.h"

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

std::string utc(std::int64_t seconds) {
  const std::time_t time = seconds;
  std::tm parts{};
  std::array<char, 40> text{};
  if (gmtime_r(&time, &parts) == nullptr ||
      std::strftime(text.data(), text.size(), "%Y-%m-%dT%H:%M:%SZ", &parts) == 0) {
    return std::to_string(seconds);
  }
  return text.data();
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

// A row's text may hold control characters; a terminal must not obey them.
std::string printable(std::string line) {
  for (char& c : line) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7F) c = '?';
  }
  return line;
}

// ---- keys from standard input

// Lines as they come: a key typed at a terminal is answered at once, a file in full batches.
class KeyReader {
 public:
  ~KeyReader() { OPENSSL_cleanse(bytes_.data(), bytes_.size()); }

  // Whole lines that are at hand now, at most a batch; empty at the end.
  std::vector<std::string_view> next(std::size_t bytes_max) {
    for (;;) {
      std::vector<std::string_view> keys = take(bytes_max);
      if (!keys.empty() || (ended_ && at_ == size_)) return keys;
      read_more();
    }
  }

 private:
  std::vector<std::string_view> take(std::size_t bytes_max) {
    std::vector<std::string_view> keys;
    std::size_t bytes = 0;
    while (keys.size() < LATCHKEY_BATCH_KEYS_MAX) {
      const std::string_view rest(bytes_.data() + at_, size_ - at_);
      std::size_t length = rest.find('\n');
      if (length == std::string_view::npos) {
        if (!ended_ || rest.empty()) break;
        length = rest.size();
      }
      std::string_view key = rest.substr(0, length);
      if (key.ends_with('\r')) key.remove_suffix(1);
      // One byte too long is enough for the daemon to call it malformed.
      key = key.substr(0, LATCHKEY_KEY_BYTES_MAX + 1);
      if (!keys.empty() && bytes + 2 + key.size() > bytes_max) break;
      bytes += 2 + key.size();
      keys.push_back(key);
      at_ = std::min(size_, at_ + length + 1);
    }
    return keys;
  }

  void read_more() {
    std::copy(bytes_.begin() + static_cast<std::ptrdiff_t>(at_),
              bytes_.begin() + static_cast<std::ptrdiff_t>(size_), bytes_.begin());
    size_ -= at_;
    at_ = 0;
    if (bytes_.size() - size_ < kChunk) {
      // A longer line than this is no key: what follows its first bytes changes nothing.
      if (size_ >= kLineMax) size_ = LATCHKEY_KEY_BYTES_MAX + 1;
      std::vector<char> larger(std::max(bytes_.size() * 2, size_ + kChunk));
      std::copy_n(bytes_.begin(), size_, larger.begin());
      OPENSSL_cleanse(bytes_.data(), bytes_.size());
      bytes_.swap(larger);
    }
    const ssize_t got = ::read(STDIN_FILENO, bytes_.data() + size_, kChunk);
    if (got < 0 && errno == EINTR) return;
    if (got < 0) throw UsageError{"cannot read standard input"};
    if (got == 0) ended_ = true;
    size_ += static_cast<std::size_t>(got);
  }

  static constexpr std::size_t kChunk = 65536;
  static constexpr std::size_t kLineMax = 1 << 20;
  std::vector<char> bytes_ = std::vector<char>(kChunk * 2);
  std::size_t at_ = 0;
  std::size_t size_ = 0;
  bool ended_ = false;
};

VerifyTerms terms_of(const VerifySettings& settings) {
  VerifyTerms terms;
  terms.want_metadata = settings.metadata;
  terms.source = settings.source;
  terms.all_scopes = settings.scopes;
  terms.any_scopes = settings.any_scopes;
  if (settings.max_age) {
    const auto ms = std::chrono::duration_cast<std::chrono::milliseconds>(*settings.max_age);
    terms.max_age_ms =
        static_cast<std::uint32_t>(std::min<std::int64_t>(ms.count(), LATCHKEY_MAX_AGE_ANY - 1));
  }
  if (terms.source.size() > LATCHKEY_SOURCE_BYTES_MAX) {
    throw UsageError{"--source has at most 63 characters"};
  }
  for (const auto* list : {&terms.all_scopes, &terms.any_scopes}) {
    if (list->size() > LATCHKEY_SCOPES_MAX) throw UsageError{"at most 32 scopes of each kind"};
    for (const std::string& scope : *list) {
      if (scope.empty() || scope.size() > LATCHKEY_SCOPE_BYTES_MAX) {
        throw UsageError{"a scope has 1 to 255 bytes"};
      }
    }
  }
  return terms;
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

// ---- status

namespace {

// What a caller without all rights is told.
void print_brief_status(const ordered_json& status) {
  std::printf("latchkeyd %s, up %.0f s\n", status.value("version", std::string()).c_str(),
              status.value("uptime_s", 0.0));
  for (const ordered_json& source : status.at("sources")) {
    std::printf("source   %-20s %-10s age %lld ms\n", source.at("name").get<std::string>().c_str(),
                source.at("state").get<std::string>().c_str(), source.value("age_ms", -1LL));
  }
}

void print_status(const ordered_json& status) {
  std::printf("latchkeyd %s, pid %d, up %.0f s, %d worker(s)\n",
              status.at("version").get<std::string>().c_str(), status.at("pid").get<int>(),
              status.at("uptime_s").get<double>(), status.at("workers").get<int>());
  for (const ordered_json& database : status.at("databases")) {
    std::printf("database %-20s %-10s for %.0f s\n", database.at("name").get<std::string>().c_str(),
                database.at("state").get<std::string>().c_str(),
                database.at("since_s").get<double>());
    if (database.at("state") != "live" && !database.at("last_error").get<std::string>().empty()) {
      std::printf("         %s\n", printable(database.at("last_error").get<std::string>()).c_str());
    }
    for (const ordered_json& reader : database.value("stalled_readers", ordered_json::array())) {
      std::printf("         PROBLEM: %s stuck in one batch for %.0f s: memory cannot be freed\n",
                  printable(reader.get<std::string>()).c_str(), database.value("stalled_s", 0.0));
    }
  }
  for (const ordered_json& source : status.at("sources")) {
    std::printf("source   %-20s %-10s %lld keys, age %lld ms, accepted %lld\n",
                source.at("name").get<std::string>().c_str(),
                source.at("state").get<std::string>().c_str(), source.value("keys", 0LL),
                source.value("age_ms", -1LL), source.value("accepted", 0LL));
    if (const auto memory = source.find("memory_bytes"); memory != source.end()) {
      std::printf("        ");
      for (const auto& [name, bytes] : memory->items()) {
        std::printf(" %s %.1f MiB", name.c_str(), bytes.get<double>() / (1 << 20));
      }
      std::printf("\n");
    }
    for (const auto& [name, count] : source.at("odd_rows").items()) {
      std::printf("         %lld rows: %s\n", count.get<long long>(), name.c_str());
    }
    for (const ordered_json& problem : source.value("problems", ordered_json::array())) {
      std::printf("         PROBLEM: %s\n", printable(problem.get<std::string>()).c_str());
    }
    if (source.value("keys_in_several_rows", 0LL) > 0) {
      std::printf("         %lld keys stand in several rows and are refused\n",
                  source.at("keys_in_several_rows").get<long long>());
    }
    if (const auto peppers = source.find("accepted_by_pepper"); peppers != source.end()) {
      for (const auto& [name, count] : peppers->items()) {
        std::printf("         %lld accepted by pepper %s\n", count.get<long long>(), name.c_str());
      }
    }
    if (const auto last_used = source.find("last_used"); last_used != source.end()) {
      std::printf("         last_used_at:");
      for (const auto& [name, count] : last_used->items()) {
        std::printf(" %s %lld", name.c_str(), count.get<long long>());
      }
      std::printf("\n");
    }
  }
  std::printf("verdicts");
  for (const auto& [name, count] : status.at("verdicts").items()) {
    if (count.get<long long>() > 0) std::printf("  %s %lld", name.c_str(), count.get<long long>());
  }
  std::printf("\nconnections");
  for (const auto& [name, count] : status.at("connections").items()) {
    std::printf("  %s %lld", name.c_str(), count.get<long long>());
  }
  std::printf("\n");
}

}  // namespace

int run_status(const CommonSettings& common) {
  Connection connection(common.socket, common.timeout);
  OutBuffer request;
  encode_status(request, 1);
  const Frame reply = connection.exchange(request, 1, LATCHKEY_STATUS_REPLY);
  const std::string_view text = as_text(reply.body);
  const ordered_json status = ordered_json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!status.is_object()) throw NoAnswer("the daemon's reply cannot be understood");
  if (common.json) {
    std::cout << text << '\n';
  } else if (status.contains("databases")) {
    print_status(status);
  } else {
    print_brief_status(status);
  }
  return kExitAllActive;
}

}  // namespace latchkey
