// The effect of a writer on readers: latencies of batches while another thread changes keys.
#pragma once

#include <benchmark/benchmark.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <thread>
#include <vector>

#include "bench/structures.h"

namespace latchkey::bench {

// Records that the peers' writer stores again under their digests. They are collected beforehand,
// because finding them is not part of the measurement.
[[nodiscard]] inline std::vector<const Record*> random_records(const Population& keys) {
  std::vector<const Record*> records;
  const std::size_t count = std::min<std::size_t>(keys.size(), 200'000);
  while (records.size() < count) {
    records.push_back(keys.keys.map.find(keys.digest(random_number(keys))));
  }
  return records;
}

// Changes keys at a rate, in bursts every 200 microseconds, until stop().
template <typename Structure>
class PacedWriter {
 public:
  PacedWriter(Population& keys, Structure& structure, std::size_t per_second)
      : thread_([this, &keys, &structure, per_second] { run(keys, structure, per_second); }) {}
  ~PacedWriter() { stop(); }
  PacedWriter(const PacedWriter&) = delete;
  PacedWriter& operator=(const PacedWriter&) = delete;

  // Returns the changes made per second; negative if some of them had no effect.
  double stop() {
    if (thread_.joinable()) {
      stop_ = true;
      thread_.join();
    }
    return rate_;
  }

 private:
  void run(Population& keys, Structure& structure, std::size_t per_second) {
    using Clock = std::chrono::steady_clock;
    const std::vector<const Record*> records = random_records(keys);
    const std::uint64_t epoch = keys.quiescence.stamp();
    const auto start = Clock::now();
    auto wake = start;
    std::size_t made = 0;
    while (!stop_) {
      const std::chrono::duration<double> passed = Clock::now() - start;
      const auto due = static_cast<std::size_t>(passed.count() * static_cast<double>(per_second));
      for (; made < due && !stop_; ++made) {
        if constexpr (std::is_same_v<Structure, Ours>) {
          const std::size_t number = random_number(keys);
          keys.writer.upsert(keys.rows.row(number, keys.digest(number), new_version()));
        } else {
          structure.change(records[made % records.size()]);
        }
      }
      if constexpr (std::is_same_v<Structure, Ours>) keys.writer.collect();
      wake += std::chrono::microseconds(200);
      std::this_thread::sleep_until(wake);
    }
    const std::chrono::duration<double> passed = Clock::now() - start;
    // Each change of Latchkey's map retires a record under a stamp of its own.
    const bool real = !std::is_same_v<Structure, Ours> || keys.quiescence.stamp() >= epoch + made;
    rate_ = real ? static_cast<double>(made) / passed.count() : -1;
  }

  std::atomic<bool> stop_{false};
  double rate_ = 0;
  std::thread thread_;
};

// Arguments: keys, milliseconds for each measurement. Rates of 0, 1000 and 50 000 changes a second
// alternate for nine rounds; each counter is the median of the rounds' percentiles.
template <typename Structure>
void under_change(benchmark::State& state) {
  using Clock = std::chrono::steady_clock;
  constexpr std::size_t kBatch = 32;
  constexpr std::size_t kRounds = 9;
  constexpr std::array<std::size_t, 3> kRates = {0, 1000, 50'000};
  Population& keys = Population::of(static_cast<std::size_t>(state.range(0)));
  Structure& structure = Held<Structure>::of(keys);
  const Questions& questions = hits(keys);
  typename Structure::Access access(structure);
  std::array<const Record*, KeyMap::kBatchMax> found{};
  std::size_t at = 0;
  std::size_t wrong = 0;
  std::array<std::vector<double>, kRates.size()> p50, p99, p999, rates;
  for (auto unused : state) {
    for (std::size_t round = 0; round < kRounds; ++round) {
      for (std::size_t i = 0; i < kRates.size(); ++i) {
        PacedWriter<Structure> writer(keys, structure, kRates[i]);
        std::vector<std::uint32_t> took_ns;
        const auto end = Clock::now() + std::chrono::milliseconds(state.range(1));
        for (auto now = Clock::now(); now < end;) {
          if (at + kBatch > questions.size()) at = 0;
          structure.find(access, std::span(questions).subspan(at, kBatch), found);
          for (std::size_t k = 0; k < kBatch; ++k) wrong += found[k] == nullptr;
          const auto before = std::exchange(now, Clock::now());
          took_ns.push_back(static_cast<std::uint32_t>((now - before).count()));
          at += kBatch;
        }
        rates[i].push_back(writer.stop());
        wrong += rates[i].back() < 0;
        std::ranges::sort(took_ns);
        p50[i].push_back(took_ns[took_ns.size() / 2]);
        p99[i].push_back(took_ns[took_ns.size() * 99 / 100]);
        p999[i].push_back(took_ns[took_ns.size() * 999 / 1000]);
      }
    }
  }
  if (wrong > 0) state.SkipWithError("wrong answer");
  const auto median = [](std::vector<double> values) {
    std::ranges::sort(values);
    return values[values.size() / 2];
  };
  for (std::size_t i = 0; i < kRates.size(); ++i) {
    const std::string at_rate = "_at_" + std::to_string(kRates[i]);
    state.counters["p50_ns" + at_rate] = median(p50[i]);
    state.counters["p99_ns" + at_rate] = median(p99[i]);
    state.counters["p99_9_ns" + at_rate] = median(p999[i]);
    state.counters["made" + at_rate] = median(rates[i]);
  }
}

}  // namespace latchkey::bench
