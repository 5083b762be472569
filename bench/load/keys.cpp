#include "bench/load/keys.h"

#include <fstream>
#include <stdexcept>

#include "latchkey/wire.h"

namespace latchkey {
namespace {

constexpr std::string_view kKnownPrefix = "lk_bench_", kUnknownPrefix = "lk_other_";
constexpr std::uint64_t kUnknownKeys = 1 << 16;
constexpr std::uint64_t kQuestions = 1 << 21, kQuestionsMin = 1 << 14;

// A permutation of the 64-bit numbers (Steele, Lea and Flood, "Fast splittable pseudorandom number
// generators", 2014: the finalizer of SplitMix64).
std::uint64_t mixed(std::uint64_t number) {
  number += 0x9E3779B97F4A7C15;
  number = (number ^ (number >> 30)) * 0xBF58476D1CE4E5B9;
  number = (number ^ (number >> 27)) * 0x94D049BB133111EB;
  return number ^ (number >> 31);
}

void write_hex(char* text, std::uint64_t number) {
  constexpr std::string_view kDigits = "0123456789abcdef";
  for (int shift = 60; shift >= 0; shift -= 4) *text++ = kDigits[(number >> shift) & 15];
}

void append_hex(std::string& text, std::uint64_t number) {
  text.resize(text.size() + 16);
  write_hex(text.data() + text.size() - 16, number);
}

std::string of_shape(std::string_view prefix, std::uint64_t index) {
  std::string key(prefix);
  append_hex(key, mixed(index));
  append_hex(key, mixed(~index));
  return key;
}

}  // namespace

std::string generated_key(std::uint64_t index) { return of_shape(kKnownPrefix, index); }
std::string unknown_key(std::uint64_t index) { return of_shape(kUnknownPrefix, index); }

std::array<char, 64> generated_value(std::uint64_t index) {
  std::array<char, 64> value;
  for (std::uint64_t part = 0; part < 4; ++part) {
    write_hex(value.data() + 16 * part, mixed(index * 4 + part));
  }
  return value;
}

// ---- Zipf: the integral of x^-exponent, which has a separate form for an exponent of 1

ZipfDistribution::ZipfDistribution(std::uint64_t count, double exponent)
    : count_(count), exponent_(exponent) {
  lower_ = integral(1.5) - 1;
  upper_ = integral(static_cast<double>(count) + 0.5);
  accept_ = 2 - inverse_integral(integral(2.5) - weight(2));
}

double ZipfDistribution::weight(double x) const { return std::pow(x, -exponent_); }

double ZipfDistribution::integral(double x) const {
  const double log_x = std::log(x), power = (1 - exponent_) * log_x;
  // expm1(t) / t, which is 1 for t = 0.
  return (std::abs(power) > 1e-8 ? std::expm1(power) / power : 1 + power / 2) * log_x;
}

double ZipfDistribution::inverse_integral(double u) const {
  const double t = std::max(u * (1 - exponent_), -1.0);
  // log1p(t) / t, which is 1 for t = 0.
  return std::exp((std::abs(t) > 1e-8 ? std::log1p(t) / t : 1 - t / 2) * u);
}

// ---- sequences

KeySequence::KeySequence(const KeyTable& table, const KeyChoice& choice, std::uint64_t thread,
                         std::size_t batch)
    : batch_(batch) {
  const std::uint64_t wanted = std::min(kQuestions, std::max(kQuestionsMin, 4 * table.size()));
  const std::size_t count = (wanted + batch - 1) / batch * batch;
  KeyChooser chooser(table, choice, thread);
  std::size_t length = 0;
  for (std::size_t i = 0; i < count; ++i) {
    keys_.push_back(chooser.next());
    length += keys_.back().text.size();
  }
  text_.reserve(length);  // so that views into it stay valid
  for (BenchKey& key : keys_) {
    const std::size_t begin = text_.size();
    text_ += key.text;
    key.text = std::string_view(text_).substr(begin);
  }
}

// ---- tables

KeyTable KeyTable::generated(std::uint64_t count) {
  KeyTable table;
  table.generated_ = true;
  const std::size_t length = generated_key(0).size();
  table.text_.reserve(count * length);
  for (std::uint64_t i = 0; i < count; ++i) table.text_ += generated_key(i);
  for (std::uint64_t i = 0; i < count; ++i) {
    table.known_.push_back(std::string_view(table.text_).substr(i * length, length));
  }
  table.add_unknown();
  return table;
}

KeyTable KeyTable::from_file(const std::string& path) {
  KeyTable table;
  std::ifstream file(path);
  if (!file) throw std::runtime_error("cannot read the keys in " + path);
  std::vector<std::size_t> ends;
  for (std::string line; std::getline(file, line);) {
    if (line.empty()) continue;
    if (line.size() > LATCHKEY_KEY_BYTES_MAX) {
      throw std::runtime_error("a key in " + path + " is longer than 4096 bytes");
    }
    table.text_ += line;
    ends.push_back(table.text_.size());
  }
  if (ends.empty()) throw std::runtime_error("there is no key in " + path);
  std::size_t begin = 0;
  for (const std::size_t end : ends) {
    table.known_.push_back(std::string_view(table.text_).substr(begin, end - begin));
    begin = end;
  }
  table.add_unknown();
  return table;
}

void KeyTable::add_unknown() {
  const std::size_t length = unknown_key(0).size();
  for (std::uint64_t i = 0; i < kUnknownKeys; ++i) unknown_text_ += unknown_key(i);
  for (std::uint64_t i = 0; i < kUnknownKeys; ++i) {
    unknown_.push_back(std::string_view(unknown_text_).substr(i * length, length));
  }
}

}  // namespace latchkey
