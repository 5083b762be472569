// The keys that a load asks for: known keys, generated or from a file, and a share of unknown keys.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <random>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace latchkey {

// Key number `index` (from zero) as `latchkey-bench keys` prints it: always 41 characters, of which
// 128 bits look random. Its row has the id `index` + 1.
[[nodiscard]] std::string generated_key(std::uint64_t index);
// A key of the same shape that is never a generated key.
[[nodiscard]] std::string unknown_key(std::uint64_t index);
// The value that a peer stores with a generated key.
[[nodiscard]] std::array<char, 64> generated_value(std::uint64_t index);

// Ranks from 0 with a probability proportional to 1 / (rank + 1)^exponent, by rejection from an
// inverted integral (Hoermann and Derflinger, "Rejection-inversion to generate variates from
// monotone discrete distributions", 1996). It needs no table for any number of ranks.
class ZipfDistribution {
 public:
  ZipfDistribution(std::uint64_t count, double exponent);
  template <typename Random>
  std::uint64_t operator()(Random& random) {
    std::uniform_real_distribution<double> uniform(0, 1);
    for (;;) {
      const double u = upper_ + uniform(random) * (lower_ - upper_);
      const double x = inverse_integral(u);
      const double k = std::min(std::max(std::round(x), 1.0), static_cast<double>(count_));
      if (k - x <= accept_ || u >= integral(k + 0.5) - weight(k)) {
        return static_cast<std::uint64_t>(k) - 1;
      }
    }
  }

 private:
  [[nodiscard]] double weight(double x) const;
  [[nodiscard]] double integral(double x) const;
  [[nodiscard]] double inverse_integral(double u) const;

  std::uint64_t count_;
  double exponent_;
  double lower_, upper_, accept_;
};

// One key to ask for, and the expected answer.
struct BenchKey {
  std::string_view text;
  std::uint64_t index = 0;  // among the known keys; undefined for unknown keys
  bool known = false;
};

struct KeyChoice {
  double hits = 1;      // share of known keys
  double exponent = 0;  // of a Zipf distribution; 0: uniform
  std::uint64_t seed = 1;
};

class KeyTable {
 public:
  // `count` generated keys.
  static KeyTable generated(std::uint64_t count);
  // Keys from a file, one a line; all must be valid. Throws std::runtime_error.
  static KeyTable from_file(const std::string& path);

  [[nodiscard]] std::uint64_t size() const { return known_.size(); }
  [[nodiscard]] bool is_generated() const { return generated_; }
  [[nodiscard]] std::string_view known(std::uint64_t index) const { return known_[index]; }
  [[nodiscard]] std::string_view unknown(std::uint64_t index) const {
    return unknown_[index % unknown_.size()];
  }

 private:
  std::string text_;  // all known keys, concatenated
  std::string unknown_text_;
  std::vector<std::string_view> known_, unknown_;
  bool generated_ = false;

  void add_unknown();
};

// Chooses keys of the table at random; each thread has its own.
class KeyChooser {
 public:
  KeyChooser(const KeyTable& table, const KeyChoice& choice, std::uint64_t thread)
      : table_(table),
        hits_(choice.hits),
        exponent_(choice.exponent),
        random_(choice.seed * 1'000'003 + thread),
        zipf_(table.size(), choice.exponent) {}
  BenchKey next() {
    if (hits_ < 1 && std::uniform_real_distribution<double>(0, 1)(random_) >= hits_) {
      return {table_.unknown(random_()), 0, false};
    }
    const std::uint64_t index =
        exponent_ == 0 ? random_() % table_.size() : scattered(zipf_(random_));
    return {table_.known(index), index, true};
  }

 private:
  // Ranks of similar frequency must not be neighbours in memory. The prime has no factor in common
  // with the size, so each index has exactly one rank.
  [[nodiscard]] std::uint64_t scattered(std::uint64_t rank) const {
    __extension__ using Wide = unsigned __int128;
    constexpr std::uint64_t kPrime = 18446744073709551557U;
    return static_cast<std::uint64_t>(static_cast<Wide>(rank) * kPrime % table_.size());
  }

  const KeyTable& table_;
  double hits_, exponent_;
  std::mt19937_64 random_;
  ZipfDistribution zipf_;
};

// A thread's questions in the order in which it asks them, repeated in a cycle. They are chosen
// beforehand and copied to contiguous memory, because finding each among millions of keys when it
// is asked would cost more than all other work of a load.
class KeySequence {
 public:
  // The length is rounded up to whole batches.
  KeySequence(const KeyTable& table, const KeyChoice& choice, std::uint64_t thread,
              std::size_t batch);
  // The keys of the next request.
  [[nodiscard]] std::span<const BenchKey> next() {
    const auto keys = std::span<const BenchKey>(keys_).subspan(at_, batch_);
    at_ = at_ + batch_ == keys_.size() ? 0 : at_ + batch_;
    return keys;
  }

 private:
  std::string text_;
  std::vector<BenchKey> keys_;
  std::size_t batch_, at_ = 0;
};

}  // namespace latchkey
