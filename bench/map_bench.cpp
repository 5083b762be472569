// The cost of look-ups, verifications and changes in this process, compared with alternatives and
// with the lower bound (structures.h).
//
// Included: digesting a presented key (verify only), outcome its record, judging it, its scopes.
// Not included: sockets, frames, claims copied into replies. Keys are asked for in random order, so
// that at large sizes most look-ups miss the caches. A wrong answer ends the run with an error.
//
//   --size N    only this size (default: 10 000 and 1 000 000); --smoke is for tests: small, short
#include <benchmark/benchmark.h>
#include <malloc.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/sha.h>

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <iostream>

#include "bench/change_bench.h"
#include "bench/embedded.h"
#include "bench/structures.h"
#include "keymap/change_set.h"

namespace latchkey::bench {
namespace {

void fail(benchmark::State& state) { state.SkipWithError("wrong answer"); }

Population& population(const benchmark::State& state) {
  return Population::of(static_cast<std::size_t>(state.range(0)));
}

// ---- look-ups

// Arguments: keys, batch.
template <typename Structure, bool kHits>
void look_up(benchmark::State& state) {
  Population& keys = population(state);
  const Structure& structure = Held<Structure>::of(keys);
  const Questions& questions = kHits ? hits(keys) : misses(keys);
  const auto batch = static_cast<std::size_t>(state.range(1));
  typename Structure::Access access(structure);
  std::array<const Record*, KeyMap::kBatchMax> found{};
  // Threads begin at different positions.
  std::size_t at = questions.size() / static_cast<std::size_t>(state.threads()) *
                   static_cast<std::size_t>(state.thread_index());
  std::size_t wrong = 0;
  std::uint64_t touched = 0;
  for (auto unused : state) {
    if (at + batch > questions.size()) at = 0;
    structure.find(access, std::span(questions).subspan(at, batch), found);
    for (std::size_t i = 0; i < batch; ++i) {
      wrong += (found[i] != nullptr) != kHits;
      touched += touch(found[i]);
    }
    for (const std::size_t i : {std::size_t{0}, batch - 1}) {
      if (kHits && found[i] != nullptr && !(found[i]->digest() == questions[at + i])) ++wrong;
    }
    at += batch;
  }
  benchmark::DoNotOptimize(touched);
  if (wrong > 0) fail(state);
  const auto count = static_cast<double>(state.iterations()) * static_cast<double>(batch);
  state.counters["ns_per_key"] =
      benchmark::Counter(count / 1e9, benchmark::Counter::kIsRate | benchmark::Counter::kInvert);
  state.counters["keys/s"] = benchmark::Counter(count, benchmark::Counter::kIsRate);
}

// ---- whole verifications

// More texts than an L3 cache holds.
std::vector<std::string> asked_texts(const Population& keys) {
  std::mt19937_64 random(kSeed);
  std::vector<std::string> texts;
  const std::size_t count = std::min<std::size_t>(keys.size(), 500'000);
  for (std::size_t i = 0; i < count; ++i) texts.push_back(keys.text(random() % keys.size()));
  return texts;
}

constexpr std::string_view kRequired[] = {"read"};

// Passes the scheme's texts to `verify`, batch by batch; `verify` counts valid ones.
template <typename Verify>
void verify_all(benchmark::State& state, const Population& keys, Verify verify) {
  const std::vector<std::string> texts = asked_texts(keys);
  std::vector<std::string_view> views(texts.begin(), texts.end());
  const auto batch = static_cast<std::size_t>(state.range(1));
  std::size_t at = 0;
  std::size_t wrong = 0;
  for (auto unused : state) {
    if (at + batch > views.size()) at = 0;
    wrong += batch - verify(std::span(views).subspan(at, batch));
    at += batch;
  }
  if (wrong > 0) fail(state);
  const auto count = static_cast<double>(state.iterations()) * static_cast<double>(batch);
  state.counters["ns_per_key"] =
      benchmark::Counter(count / 1e9, benchmark::Counter::kIsRate | benchmark::Counter::kInvert);
}

// Whether uses of keys are recorded, as with a mapped `last_used_at`.
enum class Uses { kIgnored, kNoted };

template <Scheme kScheme, Uses kUses = Uses::kIgnored>
void verify(benchmark::State& state) {
  Population& keys = Population::of(static_cast<std::size_t>(state.range(0)), kScheme);
  UseLog log(1);
  bool half_full = false;
  log.on_half_full([&] { half_full = true; });
  const UseClock clock = kUses == Uses::kNoted ? UseClock(std::chrono::seconds(5)) : UseClock();
  const Verifier verifier({keys.digester()},
                          {{&keys.keys, {0}, {}, kUses == Uses::kNoted ? &log : nullptr}},
                          FreshnessLimits{});
  Quiescence::Reader reader(keys.quiescence);
  Terms terms;
  terms.all_scopes = kRequired;
  std::array<Question, Verifier::kBatchMax> questions;
  std::array<Outcome, Verifier::kBatchMax> outcomes;
  keys.keys.freshness.prove(boot_ns());
  verify_all(state, keys, [&](std::span<const std::string_view> texts) {
    for (std::size_t i = 0; i < texts.size(); ++i) questions[i] = {texts[i], &terms};
    const ReadSection section(reader);
    const Now now = read_clocks();
    verifier.verify(std::span(questions).first(texts.size()), now, outcomes);
    const UseMoment moment = clock.at(now.real_us);
    std::size_t good = 0;
    for (std::size_t i = 0; i < texts.size(); ++i) {
      good += outcomes[i].verdict == LATCHKEY_VALID;
      UseLog* uses = verifier.routes()[outcomes[i].route].uses;
      if (uses != nullptr) uses->note(0, *outcomes[i].record, moment);
    }
    // This is the loader's task; the benchmark has no loader.
    if (half_full) {
      log.take([](const Use& use) { benchmark::DoNotOptimize(use.digest.bytes[0]); });
      half_full = false;
    }
    return good;
  });
  if (kUses == Uses::kIgnored) return;
  const std::uint32_t ago = clock.at(read_clocks().real_us).tick - outcomes[0].record->used_tick();
  if (ago > 1 || log.deferred() > 0) fail(state);
}

// The straightforward alternative: OpenSSL's one-shot functions and a well-known map behind a lock.
template <Scheme kScheme>
void verify_peer(benchmark::State& state) {
  Population& keys = Population::of(static_cast<std::size_t>(state.range(0)), kScheme);
  const auto& structure = Held<Locked<RobinMap>>::of(keys);
  Locked<RobinMap>::Access access(structure);
  verify_all(state, keys, [&](std::span<const std::string_view> texts) {
    std::array<Digest, KeyMap::kBatchMax> digests;
    std::array<const Record*, KeyMap::kBatchMax> found;
    for (std::size_t i = 0; i < texts.size(); ++i) {
      const auto* text = reinterpret_cast<const unsigned char*>(texts[i].data());
      if (kScheme == Scheme::kHmac) {
        unsigned length = 0;
        HMAC(EVP_sha256(), pepper().data(), static_cast<int>(pepper().size()), text,
             texts[i].size(), digests[i].bytes.data(), &length);
      } else {
        SHA256(text, texts[i].size(), digests[i].bytes.data());
      }
    }
    structure.find(access, std::span(digests).first(texts.size()), found);
    const std::int64_t now_us = read_clocks().real_us;
    std::size_t good = 0;
    for (std::size_t i = 0; i < texts.size(); ++i) {
      good += found[i] != nullptr && judge(*found[i], now_us) == LATCHKEY_VALID &&
              found[i]->scopes()->holds(kRequired[0]);
    }
    return good;
  });
}

// ---- digests alone

enum class Way { kOneShot, kOneByOne, kPairs };

template <Scheme kScheme, Way kWay>
void digest(benchmark::State& state) {
  const Population& keys = Population::of(static_cast<std::size_t>(state.range(0)), kScheme);
  const Digester digester = keys.digester();
  std::array<Digest, KeyMap::kBatchMax> digests;
  std::size_t round = 0;
  verify_all(state, keys, [&](std::span<const std::string_view> texts) {
    if (kWay == Way::kPairs) {
      digester(texts, digests);
    } else {
      for (std::size_t i = 0; i < texts.size(); ++i) {
        if (kWay == Way::kOneByOne) {
          digester(texts.subspan(i, 1), std::span(digests).subspan(i, 1));
          continue;
        }
        const auto* text = reinterpret_cast<const unsigned char*>(texts[i].data());
        unsigned length = 0;
        if (kScheme == Scheme::kHmac) {
          HMAC(EVP_sha256(), pepper().data(), static_cast<int>(pepper().size()), text,
               texts[i].size(), digests[i].bytes.data(), &length);
        } else {
          SHA256(text, texts[i].size(), digests[i].bytes.data());
        }
      }
    }
    benchmark::DoNotOptimize(digests);
    // The map holds the right digests. It is checked rarely, so that the check does not affect the
    // measurement.
    const bool check = ++round % 256 == 1;
    for (std::size_t i = 0; check && i < texts.size(); ++i) {
      if (keys.keys.map.find(digests[i]) == nullptr) return std::size_t{0};
    }
    return texts.size();
  });
}

// ---- changes

// One row has new content: the loader's work after a notification, without the reading.
void change(benchmark::State& state) {
  Population& keys = population(state);
  const std::uint64_t epoch = keys.quiescence.stamp();
  std::size_t made = 0;
  for (auto unused : state) {
    const std::size_t number = random_number(keys);
    keys.writer.upsert(keys.rows.row(number, keys.digest(number), new_version()));
    if (++made % 16 == 0) keys.writer.collect();
  }
  keys.writer.collect();
  // Each change retires a record under a stamp of its own, so this checks that all had an effect.
  if (keys.writer.rows() != keys.size() || keys.quiescence.stamp() < epoch + made) fail(state);
}

// Adds a row and removes another one, at constant population. Each operation is timed.
void come_and_go(benchmark::State& state) {
  Population& keys = population(state);
  std::vector<std::uint32_t> took_ns;
  std::size_t first = 0, next = keys.size();
  const auto timed = [&](auto work) {
    const auto start = std::chrono::steady_clock::now();
    work();
    const auto took = std::chrono::steady_clock::now() - start;
    took_ns.push_back(static_cast<std::uint32_t>(took.count()));
  };
  const auto come = [&](std::size_t number) {
    const RecordFacts& row = keys.rows.row(number, keys.digest(number));
    timed([&] { keys.writer.upsert(row); });
  };
  const auto go = [&](std::size_t number) {
    const std::string id(keys.rows.row(number, Digest{}).key_id);
    timed([&] {
      keys.writer.remove(id);
      keys.writer.collect();
    });
  };
  for (auto unused : state) {
    come(next++);
    go(first++);
    if (keys.writer.rows() != keys.size()) fail(state);
  }
  while (first > 0) {  // restores the population for later benchmarks
    come(--first);
    go(--next);
  }
  std::ranges::sort(took_ns);
  double sum_ns = 0;
  for (const std::uint32_t ns : took_ns) sum_ns += ns;
  state.counters["mean_us_of_both"] = sum_ns / static_cast<double>(took_ns.size()) * 2 / 1e3;
  state.counters["p50_ns"] = took_ns[took_ns.size() / 2];
  state.counters["p99_9_ns"] = took_ns[took_ns.size() * 999 / 1000];
  state.counters["max_us"] = took_ns.back() / 1e3;
}

// Every row has new content, in one load; `ns_per_key` from the first row to the publication.
void rebuild(benchmark::State& state) {
  Population& keys = population(state);
  for (auto unused : state) {
    const std::size_t version = new_version();
    ChangeSet table(keys.writer, ChangeScope::kTable);
    for (std::size_t i = 0; i < keys.size(); ++i) {
      table.stage(keys.rows.row(i, keys.digest(i), version));
    }
    if (table.apply().changed != keys.size()) fail(state);
  }
  state.counters["ns_per_key"] = benchmark::Counter(
      static_cast<double>(state.iterations()) * static_cast<double>(keys.size()) / 1e9,
      benchmark::Counter::kIsRate | benchmark::Counter::kInvert);
}

// The peers' maps alone: a pointer changes; no record is made, and no index is maintained.
template <typename Structure>
void change_peer(benchmark::State& state) {
  Population& keys = population(state);
  Structure& structure = Held<Structure>::of(keys);
  const std::vector<const Record*> records = random_records(keys);
  std::size_t next = 0;
  for (auto unused : state) structure.change(records[next++ % records.size()]);
}

template <typename Structure>
void come_and_go_peer(benchmark::State& state) {
  Population& keys = population(state);
  Structure& structure = Held<Structure>::of(keys);
  const std::vector<const Record*> records = random_records(keys);
  std::size_t next = 0;
  for (auto unused : state) {
    const Record* record = records[next++ % records.size()];
    structure.erase(record->digest());
    structure.insert(record);
  }
}

template <typename Structure>
void rebuild_peer(benchmark::State& state) {
  Population& keys = population(state);
  for (auto unused : state) {
    Held<Structure>::drop();
    Held<Structure>::of(keys);
  }
  state.counters["ns_per_key"] = benchmark::Counter(
      static_cast<double>(state.iterations()) * static_cast<double>(keys.size()) / 1e9,
      benchmark::Counter::kIsRate | benchmark::Counter::kInvert);
}

// ---- memory

// The memory of all of Latchkey's data: records with claims, map, loader's index. It was measured
// when the population was made.
void memory(benchmark::State& state) {
  Population& keys = population(state);
  for (auto unused : state) benchmark::DoNotOptimize(keys.size());
  const KeySetMemory memory = keys.writer.memory();
  const auto per_key = [&](std::size_t bytes) {
    return static_cast<double>(bytes) / static_cast<double>(keys.size());
  };
  state.counters["resident_bytes_per_key"] = keys.resident_bytes_per_key;
  state.counters["records"] = per_key(memory.records);
  state.counters["map"] = per_key(memory.map);
  state.counters["index"] = per_key(memory.index);
  state.counters["load_ns_per_key"] = keys.load_seconds * 1e9 / static_cast<double>(keys.size());
}

// The memory of the structure alone, without records.
template <typename Structure>
void memory_peer(benchmark::State& state) {
  Population& keys = population(state);
  Held<Structure>::drop();
  malloc_trim(0);  // otherwise the structure would reuse memory that was freed before
  const std::size_t before = resident_bytes();
  Held<Structure>::of(keys);
  const auto grown = static_cast<double>(resident_bytes() - before);
  for (auto unused : state) benchmark::DoNotOptimize(keys.size());
  state.counters["resident_bytes_per_key"] = grown / static_cast<double>(keys.size());
}

// ---- all benchmarks

template <typename Structure>
void register_structure(const std::string& name, std::int64_t size, bool smoke) {
  for (const std::int64_t batch : {1, 2, 4, 8, 16, 32, 64}) {
    benchmark::RegisterBenchmark(("look_up/hit/" + name).c_str(), look_up<Structure, true>)
        ->Args({size, batch});
    if (batch != 1 && batch != 32) continue;
    benchmark::RegisterBenchmark(("look_up/miss/" + name).c_str(), look_up<Structure, false>)
        ->Args({size, batch});
  }
  for (const int threads : {1, 2}) {
    benchmark::RegisterBenchmark(("scaling/" + name).c_str(), look_up<Structure, true>)
        ->Args({size, 32})
        ->Threads(threads)
        ->UseRealTime();
  }
  if constexpr (Structure::kConcurrent) {
    benchmark::RegisterBenchmark(("under_change/" + name).c_str(), under_change<Structure>)
        ->Args({size, smoke ? 20 : 400})
        ->Iterations(1)
        ->Unit(benchmark::kSecond);
  }
}

// Structures that do not change here and are read by one thread.
template <typename Structure>
void register_embedded(const std::string& name, std::int64_t size) {
  for (const std::int64_t batch : {1, 32, 64}) {
    benchmark::RegisterBenchmark(("embedded/hit/" + name).c_str(), look_up<Structure, true>)
        ->Args({size, batch});
    benchmark::RegisterBenchmark(("embedded/miss/" + name).c_str(), look_up<Structure, false>)
        ->Args({size, batch});
  }
}

template <typename Structure>
void register_peer_changes(const std::string& name, std::int64_t size, std::int64_t iterations) {
  const auto limit = [&](benchmark::internal::Benchmark* made, std::int64_t times) {
    if (times > 0) made->Iterations(times);
  };
  limit(benchmark::RegisterBenchmark(("change/" + name).c_str(), change_peer<Structure>)
            ->Args({size}),
        iterations);
  limit(benchmark::RegisterBenchmark(("come_and_go/" + name).c_str(), come_and_go_peer<Structure>)
            ->Args({size}),
        iterations);
  benchmark::RegisterBenchmark(("rebuild/" + name).c_str(), rebuild_peer<Structure>)
      ->Args({size})
      ->Iterations(1)
      ->Unit(benchmark::kMillisecond);
  benchmark::RegisterBenchmark(("memory/" + name).c_str(), memory_peer<Structure>)
      ->Args({size})
      ->Iterations(1);
}

template <Scheme kScheme>
void register_scheme(const std::string& name, std::int64_t size) {
  for (const std::int64_t batch : {1, 32, 64}) {
    benchmark::RegisterBenchmark(("verify/latchkey/" + name).c_str(), verify<kScheme>)
        ->Args({size, batch});
    benchmark::RegisterBenchmark(("verify/latchkey+last_used/" + name).c_str(),
                                 verify<kScheme, Uses::kNoted>)
        ->Args({size, batch});
    benchmark::RegisterBenchmark(("verify/robin_map+shared_mutex/" + name).c_str(),
                                 verify_peer<kScheme>)
        ->Args({size, batch});
  }
  benchmark::RegisterBenchmark(("digest/one_shot/" + name).c_str(), digest<kScheme, Way::kOneShot>)
      ->Args({size, 32});
  benchmark::RegisterBenchmark(("digest/one_by_one/" + name).c_str(),
                               digest<kScheme, Way::kOneByOne>)
      ->Args({size, 32});
  benchmark::RegisterBenchmark(("digest/pairs/" + name).c_str(), digest<kScheme, Way::kPairs>)
      ->Args({size, 32});
}

void register_all(std::int64_t size, bool smoke) {
  benchmark::RegisterBenchmark("memory/latchkey", memory)->Args({size})->Iterations(1);
  register_structure<Ours>("latchkey", size, smoke);
  register_structure<Bare>("bare", size, smoke);
  register_structure<Locked<StdMap>>("unordered_map+shared_mutex", size, smoke);
  register_structure<Locked<RobinMap>>("robin_map+shared_mutex", size, smoke);
  register_structure<Copied>("robin_map+atomic_shared_ptr", size, smoke);
  register_embedded<Ours>("latchkey", size);
  register_embedded<Sqlite>("sqlite", size);
  register_embedded<Lmdb>("lmdb", size);
  benchmark::RegisterBenchmark("change/latchkey", change)->Args({size});
  benchmark::RegisterBenchmark("come_and_go/latchkey", come_and_go)
      ->Args({size})
      ->Iterations(smoke ? 1000 : 200'000);
  benchmark::RegisterBenchmark("rebuild/latchkey", rebuild)
      ->Args({size})
      ->Iterations(1)
      ->Unit(benchmark::kMillisecond);
  register_peer_changes<Locked<StdMap>>("unordered_map+shared_mutex", size, 0);
  register_peer_changes<Locked<RobinMap>>("robin_map+shared_mutex", size, 0);
  register_peer_changes<Copied>("robin_map+atomic_shared_ptr", size, 3);
  register_scheme<Scheme::kSha256>("sha256", size);
  register_scheme<Scheme::kHmac>("hmac", size);
  register_scheme<Scheme::kJwt>("jwt", size);
}

// SkipWithError alone would leave the exit status at 0.
template <typename Reporter>
class Judge : public Reporter {
 public:
  void ReportRuns(const std::vector<benchmark::BenchmarkReporter::Run>& runs) override {
    for (const auto& run : runs) wrong_ = wrong_ || run.error_occurred;
    Reporter::ReportRuns(runs);
  }
  [[nodiscard]] bool wrong() const { return wrong_; }

 private:
  bool wrong_ = false;
};

// Removes `name` (and, if `value` is given, the value after it) from the arguments.
bool take(std::vector<char*>& arguments, const std::string& name, std::int64_t* value = nullptr) {
  const auto found =
      std::ranges::find_if(arguments, [&](const char* argument) { return name == argument; });
  if (found == arguments.end()) return false;
  if (value != nullptr) {
    if (std::next(found) == arguments.end()) return false;
    const std::string text = *std::next(found);
    if (std::from_chars(text.data(), text.data() + text.size(), *value).ec != std::errc()) {
      return false;
    }
    arguments.erase(std::next(found));
  }
  arguments.erase(found);
  return true;
}

}  // namespace
}  // namespace latchkey::bench

int main(int argc, char** argv) {
  using namespace latchkey::bench;
  std::vector<char*> arguments(argv, argv + argc);
  std::string short_time = "--benchmark_min_time=0.005";
  const bool smoke = take(arguments, "--smoke");
  if (smoke) arguments.push_back(short_time.data());
  std::int64_t size = 0;
  const bool one_size = take(arguments, "--size", &size);
  int count = static_cast<int>(arguments.size());
  benchmark::Initialize(&count, arguments.data());
  if (benchmark::ReportUnrecognizedArguments(count, arguments.data())) return 2;
  std::vector<std::int64_t> sizes = {10'000};
  if (one_size) {
    sizes = {size};
  } else if (!smoke) {
    sizes.push_back(1'000'000);
  }
  for (const std::int64_t each : sizes) register_all(each, smoke);
  Judge<benchmark::ConsoleReporter> judge;
  benchmark::RunSpecifiedBenchmarks(&judge);
  return judge.wrong() ? 1 : 0;
}
