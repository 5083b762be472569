// What a look-up and a verification cost in this process, beside what one would use instead.
//
// Counted: digesting a presented key (verify only), finding its record, judging it. Not counted:
// sockets, frames. Keys are looked up in random order, so that at large sizes most look-ups miss
// the caches. A wrong answer ends the run with an error. `--smoke` is for tests: small and short.

#include <benchmark/benchmark.h>
#include <tsl/robin_map.h>

#include <algorithm>
#include <cstdlib>
#include <iostream>
#include <map>
#include <random>
#include <shared_mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "keymap/key_set.h"
#include "keymap/verdict.h"

namespace latchkey {
namespace {

constexpr std::uint64_t kSeed = 20260131;

std::string key_text(std::size_t i) { return "sk_bench_" + std::to_string(i * 2654435761U); }

struct DigestHash {
  std::size_t operator()(const Digest& digest) const { return slot_hash(digest); }
};

// `count` active keys, and the digests of all of them in random order.
struct Population {
  Quiescence quiescence;
  KeySet keys{"bench", quiescence};
  KeySetWriter writer{keys, quiescence};
  std::vector<std::uint32_t> order;
  std::vector<Digest> digests;

  explicit Population(std::size_t count) {
    writer.begin_load();
    for (std::size_t i = 0; i < count; ++i) {
      RecordFacts facts;
      facts.digest = sha256(key_text(i));
      facts.state = RowState::kActive;
      const std::string id = std::to_string(i);
      facts.key_id = id;
      facts.subject = id;
      writer.load(Record::make(facts));
      order.push_back(static_cast<std::uint32_t>(i));
    }
    (void)writer.finish_load();
    keys.freshness.prove(boot_ns());
    std::mt19937_64 random(kSeed);
    std::ranges::shuffle(order, random);
    for (const std::uint32_t i : order) digests.push_back(sha256(key_text(i)));
  }

  static Population& of(std::size_t count) {
    static std::map<std::size_t, std::unique_ptr<Population>> made;
    auto& population = made[count];
    if (!population) population = std::make_unique<Population>(count);
    return *population;
  }
};

void expect(benchmark::State& state, bool right) {
  if (!right) state.SkipWithError("wrong answer");
}

void look_up(benchmark::State& state) {
  Population& population = Population::of(static_cast<std::size_t>(state.range(0)));
  const auto batch = static_cast<std::size_t>(state.range(1));
  Quiescence::Reader reader(population.quiescence);
  std::array<const Record*, KeyMap::kBatchMax> found{};
  std::size_t at = 0;
  for (auto unused : state) {
    if (at + batch > population.digests.size()) at = 0;
    const ReadSection section(reader);
    population.keys.map.find(std::span(population.digests).subspan(at, batch), found);
    expect(state, found[0] != nullptr && found[0]->digest() == population.digests[at]);
    at += batch;
  }
  state.SetItemsProcessed(state.iterations() * state.range(1));
}

// What one would use instead: a well-known map behind a lock that readers share.
template <typename Map>
void look_up_locked(benchmark::State& state) {
  Population& population = Population::of(static_cast<std::size_t>(state.range(0)));
  Map map;
  map.reserve(population.digests.size());
  for (const Digest& digest : population.digests) {
    map.emplace(digest, population.keys.map.find(digest));
  }
  std::shared_mutex mutex;
  std::size_t at = 0;
  for (auto unused : state) {
    if (at == population.digests.size()) at = 0;
    const std::shared_lock lock(mutex);
    const auto found = map.find(population.digests[at]);
    expect(state, found != map.end() && found->second->digest() == population.digests[at]);
    ++at;
  }
  state.SetItemsProcessed(state.iterations());
}
using RobinMap = tsl::robin_map<Digest, const Record*, DigestHash>;
using StdMap = std::unordered_map<Digest, const Record*, DigestHash>;

// The whole way of a presented key, but for the wire.
void verify(benchmark::State& state) {
  Population& population = Population::of(static_cast<std::size_t>(state.range(0)));
  const auto batch = static_cast<std::size_t>(state.range(1));
  const std::array<std::uint8_t, 32> pepper{};
  const bool hmac = state.range(2) != 0;
  std::vector<Digester> digesters;
  if (hmac) {
    digesters.emplace_back("bench", pepper, 0);
  } else {
    digesters.emplace_back();
  }
  const Verifier verifier(std::move(digesters), {{&population.keys, {0}}}, FreshnessLimits{});
  Quiescence::Reader reader(population.quiescence);
  std::vector<std::string> texts;
  for (const std::uint32_t i : population.order) texts.push_back(key_text(i));
  const Terms terms;
  std::array<Question, Verifier::kBatchMax> questions;
  std::array<Finding, Verifier::kBatchMax> findings;
  const latchkey_verdict right = hmac ? LATCHKEY_UNKNOWN : LATCHKEY_VALID;
  std::size_t at = 0;
  for (auto unused : state) {
    if (at + batch > texts.size()) at = 0;
    for (std::size_t i = 0; i < batch; ++i) questions[i] = {texts[at + i], &terms};
    const ReadSection section(reader);
    const Now now = read_clocks();
    verifier.verify(std::span(questions).first(batch), now, findings);
    expect(state, findings[0].verdict == right && findings[batch - 1].verdict == right);
    at += batch;
  }
  state.SetItemsProcessed(state.iterations() * state.range(1));
  state.SetLabel(hmac ? "hmac-sha256, misses" : "sha256, hits");
}

void register_all(bool smoke) {
  const std::vector<std::int64_t> sizes =
      smoke ? std::vector<std::int64_t>{10'000} : std::vector<std::int64_t>{10'000, 1'000'000};
  for (const std::int64_t size : sizes) {
    benchmark::RegisterBenchmark("look_up", look_up)->Args({size, 1})->Args({size, 32});
    benchmark::RegisterBenchmark("look_up/robin_map+shared_mutex", look_up_locked<RobinMap>)
        ->Args({size});
    benchmark::RegisterBenchmark("look_up/unordered_map+shared_mutex", look_up_locked<StdMap>)
        ->Args({size});
    benchmark::RegisterBenchmark("verify", verify)
        ->Args({size, 1, 0})
        ->Args({size, 32, 0})
        ->Args({size, 32, 1});
  }
}

// SkipWithError alone would leave the exit status at 0.
class Judge : public benchmark::ConsoleReporter {
 public:
  void ReportRuns(const std::vector<Run>& runs) override {
    for (const Run& run : runs) wrong_ = wrong_ || run.error_occurred;
    ConsoleReporter::ReportRuns(runs);
  }
  [[nodiscard]] bool wrong() const { return wrong_; }

 private:
  bool wrong_ = false;
};

}  // namespace
}  // namespace latchkey

int main(int argc, char** argv) {
  std::vector<char*> arguments(argv, argv + argc);
  const auto smoke =
      std::ranges::find_if(arguments, [](const char* a) { return std::string(a) == "--smoke"; });
  const bool is_smoke = smoke != arguments.end();
  std::string short_time = "--benchmark_min_time=0.01";
  if (is_smoke) *smoke = short_time.data();
  int count = static_cast<int>(arguments.size());
  benchmark::Initialize(&count, arguments.data());
  if (benchmark::ReportUnrecognizedArguments(count, arguments.data())) return 2;
  latchkey::register_all(is_smoke);
  latchkey::Judge judge;
  benchmark::RunSpecifiedBenchmarks(&judge);
  return judge.wrong() ? 1 : 0;
}
