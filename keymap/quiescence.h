// When may memory that readers could still hold be freed?
//
// A worker looks things up only inside a ReadSection: one section for a whole batch of requests.
// Its end is the worker's quiescent point; outside of it the worker is offline and holds nothing,
// however long it sleeps. The writer never waits for readers: it unlinks an object, stamps it with
// the epoch, and frees it once every section that could have seen the object has ended. This is
// epoch-based reclamation; it is our own (and not a library's) because it is fifty lines that
// ThreadSanitizer can follow, where the known libraries (liburcu, folly's) use fences and signals
// that it cannot.
//
// Why it is safe. R1, R2 and W1 to W3 below are sequentially consistent, so they have one order
// that all threads agree on. (A pointer's first value may have been stored before its table was
// published, and relaxed; an R2 that returns it comes before W1 in that order all the same, because
// it precedes W1 in the order of that word's values: C++20 [atomics.order] 4.)
//   Reader:  R1 announce the epoch   R2 load the pointer   ...use...   R3 go offline
//   Writer:  W1 unlink the pointer   W2 advance the epoch  W3 look at the reader's announcement
// If R1 comes before W3, the writer sees an announcement that is not newer than the object's stamp
// and keeps the object, unless the reader had read the epoch after W2; then R2 comes after W1 and
// finds the object gone. If R1 comes after W3, R2 also comes after W1: gone again. And R3 (release)
// read by W3 (acquire) makes the reader's last use happen before the freeing.
//
// Weaker orders would not do. R1 followed by R2 is a store followed by a load of something else:
// release and acquire let them change places, and then the writer sees a reader offline that
// already holds the pointer. R2 itself has to be part of the one order, too: an acquire load could
// still return the pointer from before W1. On x86-64 sequentially consistent loads cost what plain
// loads cost; a section costs one locked store (R1).
//
// A reader that stays in one section holds back everything unlinked since. It cannot be waited for,
// and nothing can be taken from it: StallWatch names it.
#pragma once

#include <array>
#include <atomic>
#include <cassert>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

namespace latchkey {

class Quiescence {
 public:
  static constexpr std::size_t kReadersMax = 64;

  // One thread's seat, taken for the life of the thread. `name` is for operators.
  class Reader {
   public:
    explicit Reader(Quiescence& quiescence, std::string name = "reader");
    ~Reader();
    Reader(const Reader&) = delete;
    Reader& operator=(const Reader&) = delete;

   private:
    friend class ReadSection;
    Quiescence& quiescence_;
    std::size_t seat_;
  };

  // After unlinking: the stamp under which the unlinked objects wait (W2).
  [[nodiscard]] std::uint64_t stamp() { return epoch_.fetch_add(1); }
  // Objects with a smaller stamp can be freed (W3).
  [[nodiscard]] std::uint64_t safe_before() const;
  // Whose sections hold objects of this stamp back.
  [[nodiscard]] std::vector<std::string> holders_of(std::uint64_t stamp) const;

 private:
  friend class ReadSection;
  // What a seat shows when nobody reads in it; epochs lie in between.
  static constexpr std::uint64_t kOffline = 0;
  static constexpr std::uint64_t kFree = ~std::uint64_t{0};

  struct alignas(64) Seat {  // a cache line each: readers never share one
    std::atomic<std::uint64_t> epoch{kFree};
  };
  std::array<Seat, kReadersMax> seats_;
  alignas(64) std::atomic<std::uint64_t> epoch_{1};
  // Taken by threads that come and go, and by whoever asks for names; never in a section.
  mutable std::mutex names_mutex_;
  std::array<std::string, kReadersMax> names_;
};

class ReadSection {
 public:
  explicit ReadSection(Quiescence::Reader& reader)
      : seat_(reader.quiescence_.seats_[reader.seat_].epoch) {
    assert(seat_.load(std::memory_order_relaxed) == Quiescence::kOffline && "sections do not nest");
    seat_.store(reader.quiescence_.epoch_.load());  // R1
  }
  ~ReadSection() { seat_.store(Quiescence::kOffline, std::memory_order_release); }  // R3
  ReadSection(const ReadSection&) = delete;
  ReadSection& operator=(const ReadSection&) = delete;

 private:
  std::atomic<std::uint64_t>& seat_;
};

// Notices that something waits to be freed for longer than a batch can take.
//
// A reader that announced an epoch not newer than an object's stamp has been in one and the same
// section ever since the stamp was made. So it is enough to remember since when the oldest stamp
// waits.
class StallWatch {
 public:
  // A section lasts microseconds; a worker that was stopped for so long is not coming back by
  // itself soon.
  static constexpr std::int64_t kLimitNs = 1'000'000'000;

  struct Stall {
    std::vector<std::string> readers;
    std::int64_t for_ns = 0;
  };
  // `oldest` is the stamp of what has waited longest, nothing if nothing waits; `now_ns` counts
  // from anywhere. Call it whenever something was collected, at least every second or so.
  [[nodiscard]] std::optional<Stall> look(const Quiescence& quiescence,
                                          std::optional<std::uint64_t> oldest, std::int64_t now_ns);

 private:
  std::optional<std::uint64_t> waiting_;
  std::int64_t since_ns_ = 0;
};

}  // namespace latchkey
