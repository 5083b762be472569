// Reads tests/vectors/wire.txt, whose head explains the format.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cctype>
#include <cstdint>
#include <fstream>
#include <ostream>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace latchkey::test {

using Field = std::pair<std::string, std::string>;

struct Vector {
  std::string name;
  std::vector<std::uint8_t> frame;
  bool decode_only = false;
  std::vector<Field> meaning;  // of a good vector
  std::string reader, error;   // of a bad vector

  [[nodiscard]] bool good() const { return error.empty(); }
  friend std::ostream& operator<<(std::ostream& out, const Vector& vector) {
    return out << vector.name;
  }
};

inline std::uint8_t hex_digit(char c) {
  const auto value = std::string_view("0123456789abcdef").find(c);
  if (value == std::string_view::npos) throw std::runtime_error("not a hex digit");
  return static_cast<std::uint8_t>(value);
}

inline void append_hex(std::vector<std::uint8_t>& to, std::string text) {
  std::erase(text, ' ');
  if (text.size() % 2 != 0) throw std::runtime_error("half a byte of hex");
  for (std::size_t i = 0; i < text.size(); i += 2) {
    to.push_back(static_cast<std::uint8_t>(hex_digit(text[i]) << 4 | hex_digit(text[i + 1])));
  }
}

inline std::string escaped(std::string_view bytes) {
  std::string text;
  for (const char c : bytes) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte >= 0x20 && byte <= 0x7e && c != '\\') {
      text += c;
    } else {
      text += {'\\', 'x', "0123456789abcdef"[byte >> 4], "0123456789abcdef"[byte & 15]};
    }
  }
  return text;
}

inline std::string unescaped(std::string_view text) {
  std::string bytes;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '\\') {
      bytes += text[i];
      continue;
    }
    bytes += static_cast<char>(hex_digit(text.at(i + 2)) << 4 | hex_digit(text.at(i + 3)));
    i += 3;
  }
  return bytes;
}

inline void add_line(Vector& vector, const std::string& field, const std::string& value) {
  if (field == "hex") return append_hex(vector.frame, value);
  if (field == "direction") {
    vector.decode_only = value == "decode";
    return;
  }
  const std::pair<const char*, std::string*> texts[] = {
      {"name", &vector.name}, {"reader", &vector.reader}, {"error", &vector.error}};
  for (const auto& [name, text] : texts) {
    if (field != name) continue;
    *text = value;
    return;
  }
  vector.meaning.emplace_back(field, value);
}

inline std::vector<Vector> read_vectors(const std::string& path) {
  std::ifstream file(path);
  if (!file) throw std::runtime_error("cannot read " + path);
  std::vector<Vector> vectors;
  bool between = true;
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with('#')) continue;
    if (line.empty()) {
      between = true;
      continue;
    }
    if (std::exchange(between, false)) vectors.emplace_back();
    const std::size_t colon = line.find(':');
    if (colon == std::string::npos) throw std::runtime_error("no colon in: " + line);
    const std::size_t value = std::min(line.size(), colon + 2);
    add_line(vectors.back(), line.substr(0, colon), line.substr(value));
  }
  return vectors;
}

inline bool is_request(const Vector& vector) { return (vector.frame.at(1) & 0x80) == 0; }

// The vectors for which `wanted` is true.
template <typename Wanted>
std::vector<Vector> vectors_that(Wanted wanted) {
  std::vector<Vector> all = read_vectors(LATCHKEY_VECTORS "/wire.txt");
  std::erase_if(all, [wanted](const Vector& vector) { return !wanted(vector); });
  return all;
}

// The name of a vector's test.
inline std::string test_name(const testing::TestParamInfo<Vector>& info) {
  std::string name;
  for (const char c : info.param.name) {
    name += std::isalnum(static_cast<unsigned char>(c)) != 0 ? c : '_';
  }
  return name;
}

}  // namespace latchkey::test
