// latchkey why: explains the verdict on one key to an operator. It prints the verdict, then the
// rows for and against it, then the sources that were searched, then advice.

#include <openssl/crypto.h>
#include <unistd.h>

#include <algorithm>
#include <iostream>
#include <nlohmann/json.hpp>
#include <set>

#include "tool/commands.h"
#include "tool/connection.h"
#include "tool/question.h"
#include "tool/text.h"

namespace latchkey {
namespace {

using nlohmann::ordered_json;

std::string text_of(const ordered_json& object, const char* name) {
  return object.value(name, std::string());
}

ordered_json list_of(const ordered_json& object, const char* name) {
  return object.value(name, ordered_json::array());
}

std::string quoted(const std::string& text) { return "\"" + text + "\""; }

// "a", "b", "c"
std::string names_of(const ordered_json& texts) {
  std::string names;
  for (const ordered_json& text : texts) {
    names += (names.empty() ? "" : ", ") + quoted(text.get<std::string>());
  }
  return names;
}

bool holds(const ordered_json& texts, const char* wanted) {
  return std::ranges::any_of(texts, [&](const ordered_json& text) { return text == wanted; });
}

// ---- the verdict

std::string sentence_of(const ordered_json& told) {
  const std::string verdict = text_of(told, "verdict");
  if (verdict == "valid") return "the holder may in";
  if (verdict == "unknown") return "no row of the sources asked holds this key";
  if (verdict == "forbidden") return "this caller may not ask about that source";
  if (verdict == "insufficient_scope") return "a good key, but not for the scopes asked for";
  if (verdict == "unavailable") {
    return "no trustworthy answer, because what is known is too old; below is what was known last";
  }
  if (verdict == "malformed") {
    const std::string because = text_of(told, "malformed");
    if (because == "empty") return "an empty line can be no key";
    if (because == "too_long") return "more than 4096 bytes can be no key";
    return "text with a zero byte can be no key";
  }
  return "the holder may not in";
}

void print_verdict(const ordered_json& told) {
  std::string text = sentence_of(told);
  if (told.contains("age_ms") && text_of(told, "verdict") != "malformed") {
    text += std::string(told.value("fresh", false) ? " (fresh, age " : " (NOT FRESH, age ") +
            span_text(told.value("age_ms", 0.0) / 1000) + ")";
  }
  std::cout << wrapped(text_of(told, "verdict") + ": ", text);
}

// ---- the rows

std::string condition_text(const ordered_json& condition) {
  const std::string name = text_of(condition, "condition");
  const auto at = [&condition] {
    return condition.contains("at") ? ", at " + utc(condition.value("at", std::int64_t{0})) : "";
  };
  if (name == "expired") {
    if (!condition.contains("at")) return "expired, always";
    return "expired " + span_text(condition.value("for_s", 0.0)) + " ago" + at();
  }
  if (name == "not_yet_valid") {
    if (!condition.contains("at")) return "never becomes valid";
    return "not valid before " + span_text(condition.value("in_s", 0.0)) + " from now" + at();
  }
  if (name == "insufficient_scope") {
    std::string text;
    if (condition.contains("missing")) text = "lacks scope " + names_of(condition.at("missing"));
    if (condition.contains("none_of")) {
      text += (text.empty() ? "" : "; ") + std::string("holds none of ") +
              names_of(condition.at("none_of"));
    }
    return text;
  }
  if (name == "ambiguous") {
    return "ambiguous: rows " + names_of(list_of(condition, "key_ids")) +
           (condition.value("more", false) ? " and others" : "") +
           " hold this key, so it is nobody's";
  }
  if (name == "changing")
    return "the rows that hold this key are being changed right now: ask again";
  if (name == "other_row_refuses") {
    return "row " + quoted(text_of(condition, "key_id")) + " of source " +
           quoted(text_of(condition, "source")) + " refuses this key, and a refusal goes first";
  }
  return name;  // revoked, disabled, deleted, and conditions of later versions
}

std::string facts_of(const ordered_json& row) {
  std::string facts;
  for (const char* name : {"sub", "tenant", "scope"}) {
    if (row.contains(name)) facts += std::string(" ") + name + "=" + quoted(text_of(row, name));
  }
  for (const char* name : {"exp", "nbf"}) {
    if (row.contains(name)) {
      facts += std::string(" ") + name + "=" + utc(row.value(name, std::int64_t{0}));
    }
  }
  return facts.empty() ? facts : facts.substr(1);
}

const char* decides(const std::string& because) {
  if (because == "refuses") return ", which decides because it refuses";
  if (because == "first") return ", which decides because it comes first";
  return ", which decides";
}

void print_rows(const ordered_json& told) {
  for (const ordered_json& row : list_of(told, "rows")) {
    std::string line = quoted(text_of(row, "key_id")) + " of source " +
                       quoted(text_of(row, "source")) + ", by " + text_of(row, "digest");
    if (row.value("speaks", false)) line += decides(text_of(told, "speaks_because"));
    std::cout << wrapped("row      ", line);
    const ordered_json failing = list_of(row, "failing");
    for (const ordered_json& condition : failing) {
      std::cout << wrapped("       - ", condition_text(condition));
    }
    if (failing.empty()) std::cout << "       + nothing speaks against it\n";
    if (const std::string facts = facts_of(row); !facts.empty()) {
      std::cout << wrapped("         ", facts);
    }
  }
  if (const auto left = told.value("rows_left_out", 0LL)) {
    std::cout << "         and " << left << " more rows\n";
  }
}

// ---- the key, and the sources that were searched

void print_key(const ordered_json& key) {
  const std::string form = text_of(key, "form");
  std::string text = std::to_string(key.value("bytes", 0LL)) + " bytes";
  if (form == "jwt") text += ", looks like a JWT";
  if (form == "minted") {
    text += ", made as by `latchkey mint`, checksum " + text_of(key, "checksum");
  }
  for (const auto& [odd, said] : {std::pair("leading_space", ", BEGINS WITH WHITE SPACE"),
                                  std::pair("trailing_space", ", ENDS WITH WHITE SPACE"),
                                  std::pair("control_character", ", holds a control character"),
                                  std::pair("non_ascii", ", holds a character beyond ASCII")}) {
    if (holds(list_of(key, "odd"), odd)) text += said;
  }
  const ordered_json odd = list_of(key, "odd");
  if (holds(odd, "white_space") && !holds(odd, "leading_space") && !holds(odd, "trailing_space")) {
    text += ", holds white space";
  }
  std::cout << wrapped("key      ", text);
}

void print_sources(const ordered_json& told) {
  for (const ordered_json& source : list_of(told, "sources")) {
    std::string text = quoted(text_of(source, "name")) + " (" + text_of(source, "scheme") + ", " +
                       text_of(source, "state");
    if (source.contains("age_ms")) {
      text += ", age " + span_text(source.value("age_ms", 0.0) / 1000);
    }
    text += ")";
    const char* between = ": ";
    for (const ordered_json& way : list_of(source, "tried")) {
      text +=
          between + text_of(way, "digest") + (way.value("found", false) ? " FOUND" : " not found");
      between = ", ";
    }
    std::cout << wrapped("tried    ", text);
  }
}

// ---- advice

void advise(const std::string& text) { std::cout << wrapped("do       ", text); }

void advise_on_age(const ordered_json& told) {
  for (const ordered_json& source : list_of(told, "sources")) {
    const std::string name = quoted(text_of(source, "name")), too_old = text_of(source, "too_old");
    if (too_old == "never_loaded") {
      advise("Source " + name +
             " has not been loaded yet: `latchkey status` says what it waits for.");
    } else if (too_old == "max_stale") {
      advise("Source " + name +
             " is older than `max_stale`: `latchkey status` says what keeps it"
             " from its database.");
    } else if (too_old == "max_age") {
      advise("Source " + name +
             " is older than --max-age allows: ask for less, or see"
             " `latchkey status`.");
    }
  }
}

void advise_on_unknown(const ordered_json& told) {
  const ordered_json key = told.value("key", ordered_json::object());
  const std::string stripped = text_of(told, "stripped_verdict");
  if (const std::string prefix = text_of(told, "stripped_prefix"); !prefix.empty()) {
    return advise("Without " + quoted(prefix) + " at its front the key is known (" + stripped +
                  "): the application stores what stands behind that. Hand on the rest alone.");
  }
  if (!stripped.empty() && stripped != "unknown") {
    return advise(
        "Without the white space, quotation marks, unseen characters or \"Bearer\" the key is known"
        " (" +
        stripped + "): these were copied with it.");
  }
  if (text_of(told, "verdict") == "malformed") return;  // no table was searched
  const ordered_json odd = list_of(key, "odd");
  if (holds(odd, "leading_space") || holds(odd, "trailing_space")) {
    advise(
        "White space stands around the key, as if copied with it; but without it no row holds the"
        " key either.");
  }
  if (text_of(key, "checksum") == "wrong") {
    advise(
        "The checksum at its end does not fit: a character is missing or mistyped (unless another"
        " program than `latchkey mint` made it).");
  }
  for (const ordered_json& source : list_of(told, "sources")) {
    std::string versions;
    for (const ordered_json& way : list_of(source, "tried")) {
      if (way.contains("pepper")) {
        versions += (versions.empty() ? "" : ", ") + text_of(way, "pepper");
      }
    }
    if (versions.empty()) continue;
    advise("In source " + quoted(text_of(source, "name")) + " it was looked for under pepper " +
           versions +
           ". If its row names another version, that file is missing from the `peppers`"
           " folder; `latchkey status` counts such rows (unknown_pepper_version).");
  }
  advise("If it was issued just now: `latchkey sync` returns once that is in force.");
}

std::set<std::string> conditions_of(const ordered_json& told) {
  std::set<std::string> names;
  for (const ordered_json& row : list_of(told, "rows")) {
    for (const ordered_json& condition : list_of(row, "failing")) {
      names.insert(text_of(condition, "condition"));
    }
  }
  return names;
}

void advise_on_rows(const ordered_json& told) {
  const auto failing = conditions_of(told);
  if (failing.contains("ambiguous")) {
    advise("Delete or change all of these rows but one: a key that several hold is refused.");
  }
  if (failing.contains("disabled")) {
    advise(
        "Disabled by its row, or the row cannot be understood: `latchkey status` counts odd rows.");
  }
  if (failing.contains("expired")) {
    advise("Issue a new key, or move the expiry in the row (a JWT's own exp counts, too).");
  }
  if (failing.contains("not_yet_valid")) {
    advise(
        "Wait; or, if that time should have come, compare the clocks of this host and the issuer.");
  }
  if (failing.contains("insufficient_scope")) {
    advise("Give the row the scopes, or see whether the caller asks for the right ones.");
  }
}

void print_advice(const ordered_json& told) {
  const std::string verdict = text_of(told, "verdict");
  if (verdict == "valid") return;
  if (verdict == "unavailable") return advise_on_age(told);
  if (verdict == "unknown" || verdict == "malformed") return advise_on_unknown(told);
  if (verdict == "forbidden") {
    return advise("Leave out --source, or name the source in this caller's [[allow]] rule.");
  }
  advise_on_rows(told);
}

void print_explanation(const ordered_json& told) {
  print_verdict(told);
  print_rows(told);
  print_key(told.value("key", ordered_json::object()));
  if (text_of(told, "verdict") != "malformed") print_sources(told);
  print_advice(told);
}

int exit_code(const ordered_json& told) {
  if (told.value("active", false)) return kExitAllActive;
  return text_of(told, "verdict") == "unavailable" ? kExitNoAnswer : kExitSomeInactive;
}

}  // namespace

int run_why(const CommonSettings& common, const VerifySettings& settings) {
  const VerifyQuestion question(settings);
  KeyReader reader;
  const auto keys = reader.next();
  if (keys.empty()) throw UsageError{"no key on standard input: `why` explains the one it reads"};
  // The key is copied, because the next read moves the buffer.
  struct Key {
    std::string text;
    ~Key() { OPENSSL_cleanse(text.data(), text.size()); }
  };
  Key key{std::string(keys.front())};
  // At a terminal, the first line is the key. Elsewhere, a second line may still arrive.
  if (keys.size() > 1 || (isatty(STDIN_FILENO) == 0 && !reader.next().empty())) {
    throw UsageError{
        "several keys on standard input: `why` explains one. `latchkey verify` takes many"};
  }
  const ordered_json told = Connection(common.socket, common.timeout).why(question, key.text);
  if (common.json) {
    std::cout << told << '\n';
  } else {
    print_explanation(told);
  }
  return exit_code(told);
}

}  // namespace latchkey
