#include "bench/population.h"
#include "keymap/change_set.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <fstream>
#include <map>
#include <mutex>

namespace latchkey::bench {
namespace {

constexpr std::size_t kQuestions = 4'000'000;

// splitmix64 (Steele, Lea, Flood 2014): a different random number for each input.
std::uint64_t mix(std::uint64_t x) {
  x += 0x9E3779B97F4A7C15;
  x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9;
  x = (x ^ x >> 27) * 0x94D049BB133111EB;
  return x ^ x >> 31;
}

Questions questions(const Population& population, std::size_t first_number) {
  std::mt19937_64 random(kSeed);
  Questions made;
  const std::size_t count = std::clamp<std::size_t>(population.size(), 100'000, kQuestions);
  for (std::size_t i = 0; i < count; ++i) {
    made.push_back(population.digest(first_number + random() % population.size()));
  }
  return made;
}

// The questions of the current population, by their first number.
std::map<std::size_t, Questions>& made() {
  static std::map<std::size_t, Questions> questions;
  return questions;
}

// Benchmarks with several threads call cached() on all of them at once.
std::mutex made_mutex;

const Questions& cached(const Population& population, std::size_t first_number) {
  const std::lock_guard lock(made_mutex);
  const auto found = made().find(first_number);
  if (found != made().end()) return found->second;
  return made()[first_number] = questions(population, first_number);
}

// Cheap to compute, and as random as a real digest.
Digest digest_of(std::size_t number) {
  Digest digest;
  for (std::size_t i = 0; i < 4; ++i) {
    const std::uint64_t word = mix(4 * number + i);
    std::memcpy(digest.bytes.data() + 8 * i, &word, sizeof word);
  }
  return digest;
}

std::string random_text(std::size_t number, std::size_t size) {
  constexpr const char* kAlphabet =
      "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz01";
  std::string text;
  for (std::uint64_t bits = mix(number); text.size() < size; bits = mix(bits)) {
    for (int i = 0; i < 10 && text.size() < size; ++i, bits >>= 6) text += kAlphabet[bits & 63];
  }
  return text;
}

constexpr std::array<std::uint8_t, 32> kPepper = {1, 2, 3};

}  // namespace

std::span<const std::uint8_t> pepper() { return kPepper; }

Rows::Rows(ScopeSets& scopes) {
  for (int i = 0; i < 16; ++i) {
    std::vector<std::string> names = {"read"};
    for (int bit = 0; bit < 4; ++bit) {
      if ((i >> bit & 1) != 0) names.push_back("resource" + std::to_string(bit) + ":write");
    }
    sets_.push_back(scopes.intern(names));
  }
}

const RecordFacts& Rows::row(std::size_t number, const Digest& digest, std::size_t version) {
  id_ = std::to_string(10'000'000 + number);
  // Eight digits, and a different number for each of the next ten million versions.
  subject_ = std::to_string(20'000'000 + (number + version * 7) % 70'000'000);
  tenant_ = std::to_string(1000 + number % 1000);
  facts_.digest = digest;
  facts_.state = RowState::kActive;
  facts_.expires_us = number % 2 == 0 ? kNeverExpires : std::int64_t{4'000'000'000} * 1'000'000;
  facts_.key_id = id_;
  facts_.subject = subject_;
  facts_.tenant = tenant_;
  facts_.scopes = sets_[number % sets_.size()];
  return facts_;
}

std::size_t resident_bytes() {
  std::ifstream statm("/proc/self/statm");
  std::size_t total_pages = 0, resident_pages = 0;
  statm >> total_pages >> resident_pages;
  return resident_pages * static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
}

Population::Population(std::size_t count, Scheme scheme)
    : count_(count), scheme_(scheme), pepper_(kPepper) {
  // Rows are in the order in which a database's heap would deliver them; questions are random.
  const std::size_t before = resident_bytes();
  const auto start = std::chrono::steady_clock::now();
  ChangeSet table(writer, ChangeScope::kTable);
  for (std::size_t i = 0; i < count; ++i) table.stage(rows.row(i, digest(i)));
  (void)table.apply();
  load_seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  resident_bytes_per_key =
      static_cast<double>(resident_bytes() - before) / static_cast<double>(count);
  keys.freshness.prove(0);
}

Digest Population::digest(std::size_t number) const {
  if (scheme_ == Scheme::kNone) return digest_of(number);
  return scheme_ == Scheme::kHmac ? pepper_.digest(text(number)) : sha256(text(number));
}

// A typical key: a prefix and about 200 random bits, 43 characters. A JWT has 300 characters.
std::string Population::text(std::size_t number) const {
  return scheme_ == Scheme::kJwt ? "eyJhbGciOiJIUzI1NiJ9." + random_text(number, 279)
                                 : "sk_bench_" + random_text(number, 34);
}

Digester Population::digester() const {
  return scheme_ == Scheme::kHmac ? Digester("bench", kPepper, 0) : Digester();
}

Population& Population::of(std::size_t count, Scheme scheme) {
  static std::mutex mutex;
  static std::unique_ptr<Population> held;
  const std::lock_guard lock(mutex);
  if (held == nullptr || held->count_ != count || held->scheme_ != scheme) {
    made().clear();
    held.reset();
    held = std::make_unique<Population>(count, scheme);
  }
  return *held;
}

const Questions& hits(const Population& population) { return cached(population, 0); }
const Questions& misses(const Population& population) {
  return cached(population, population.size());
}

std::size_t random_number(const Population& population) {
  static std::mt19937_64 random(kSeed);
  return random() % population.size();
}

std::size_t new_version() {
  static std::size_t version = 0;
  return ++version;
}

}  // namespace latchkey::bench
