// Reads keys from standard input, one per line, and prints for each whether its holder may write.
//
//     c++ -std=c++17 verify.cpp $(pkg-config --cflags --libs latchkey) -o verify
#include <iostream>
#include <latchkey/client.hpp>
#include <string>
#include <vector>

int main() {
  std::vector<std::string> keys;
  for (std::string key; std::getline(std::cin, key);) keys.push_back(key);

  latchkey::Question may_write;
  may_write.all_scopes = {"write"};
  try {
    latchkey::Client client;
    const std::vector<std::string_view> views(keys.begin(), keys.end());
    for (const latchkey::Answer& answer : client.verify(views, may_write)) {
      if (answer) {
        std::cout << "in, as " << answer.subject.value_or("nobody") << '\n';
      } else {
        std::cout << "out: " << latchkey_verdict_name(answer.verdict) << '\n';
      }
    }
  } catch (const latchkey::Error& error) {
    std::cerr << "no answer: " << error.what() << '\n';
    return 2;
  }
}
