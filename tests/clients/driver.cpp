// The C++ counterpart of driver.c.
#include <charconv>
#include <iostream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "latchkey/client.hpp"

namespace {

using nlohmann::json;
using std::chrono::milliseconds;

std::vector<std::string> split(const std::string& text, char separator) {
  std::vector<std::string> words;
  std::istringstream in(text);
  for (std::string word; std::getline(in, word, separator);) words.push_back(word);
  if (!text.empty() && text.back() == separator) words.emplace_back();
  return words;
}

// max age, source, all scopes, any scopes; `-` means none.
latchkey::Question question(const std::vector<std::string>& words) {
  latchkey::Question made;
  if (words[2] != "any") made.max_age = milliseconds(std::stoll(words[2]));
  if (words[3] != "-") made.source = words[3];
  if (words[4] != "-") made.all_scopes = split(words[4], ',');
  if (words[5] != "-") made.any_scopes = split(words[5], ',');
  return made;
}

json told(const latchkey::Answer& answer) {
  json object = {{"verdict", latchkey_verdict_name(answer.verdict)}, {"fresh", answer.fresh}};
  if (answer.age) object["age_ms"] = answer.age->count();
  const auto add = [&object](const char* name, const std::optional<std::string>& text) {
    if (text) object[name] = *text;
  };
  add("source", answer.source);
  add("key_id", answer.key_id);
  add("sub", answer.subject);
  add("tenant", answer.tenant);
  add("scope", answer.scope);
  if (answer.expires) {
    object["exp"] =
        std::chrono::floor<std::chrono::seconds>(answer.expires->time_since_epoch()).count();
  }
  return object;
}

json run(latchkey::Client& client, const std::vector<std::string>& words) {
  client.set_timeout(milliseconds(std::stoll(words[1])));
  if (words[0] == "ping") {
    client.ping();
    return json::object();
  }
  if (words[0] == "sync") {
    return {{"waited_us", client.sync(milliseconds(std::stoll(words[2]))).count()}};
  }
  if (words[0] == "status") return {{"json", json::parse(client.status())}};
  if (words[0] == "why") return {{"json", json::parse(client.why(words[6], question(words)))}};
  json answers = json::array();
  if (words.size() == 7) {
    answers.push_back(told(client.verify(words[6], question(words))));
  } else {
    const std::vector<std::string_view> keys(words.begin() + 6, words.end());
    for (const auto& answer : client.verify(keys, question(words))) answers.push_back(told(answer));
  }
  return {{"answers", answers}};
}

}  // namespace

int main() {
  latchkey::Client client;
  for (std::string line; std::getline(std::cin, line);) {
    json result;
    try {
      result = run(client, split(line, '\t'));
    } catch (const latchkey::Error& error) {
      result = {{"failure", latchkey_failure_name(error.failure)}, {"text", error.what()}};
      if (error.failure == LATCHKEY_FAILED_REFUSED) {
        result["refusal"] = latchkey_refusal_name(error.refusal);
      }
    }
    std::cout << result.dump() << std::endl;
  }
}
