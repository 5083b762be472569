// Determines when memory that readers could hold may be freed.
//
// A worker looks up keys only inside a ReadSection; one section covers a whole batch of requests.
// Its end is the worker's quiescent point. Outside of sections the worker is offline and holds
// nothing, however long it sleeps. The writer never waits for readers: it unlinks an object, stamps
// it with the epoch, and frees it once every section that could have seen the object has ended.
// This is epoch-based reclamation. The implementation is our own because ThreadSanitizer can follow
// its fifty lines; libraries (liburcu, folly's) use fences and signals that ThreadSanitizer cannot
// follow.
//
// Safety. R1, R2 and W1 to W3 below are sequentially consistent, so all threads agree on one total
// order of them. (A pointer's first value may be a relaxed store, made before its table was
// published. An R2 that returns this value still precedes W1 in the total order, because the value
// precedes W1's in the word's modification order: C++20 [atomics.order] 4.)
//   Reader:  R1 announce the epoch   R2 load the pointer   ...use...   R3 go offline
//   Writer:  W1 unlink the pointer   W2 advance the epoch  W3 look at the reader's announcement
// If R1 precedes W3, the writer sees an announcement that is not newer than the object's stamp and
// keeps the object, unless the reader read the epoch after W2; in that case R2 follows W1 and finds
// the object gone. If R1 follows W3, R2 also follows W1 and finds the object gone. R3 (release)
// read by W3 (acquire) makes the reader's last use happen before the freeing.
//
// Weaker orders do not suffice. R1 followed by R2 is a store followed by a load of another
// location: release and acquire allow reordering them, and the writer could then see as offline a
// reader that already holds the pointer. R2 itself must be part of the total order, too: an acquire
// load could still return the pointer from before W1. On x86-64, sequentially consistent loads cost
// the same as plain loads; a section costs one locked store (R1).
//
// A reader that stays in one section delays freeing everything unlinked since. The writer cannot
// wait for the reader or take memory from it; StallWatch reports its name.
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

  // One thread's seat, held for the life of the thread. `name` is for operators.
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

  // Call after unlinking: returns the stamp under which the unlinked objects wait (W2).
  [[nodiscard]] std::uint64_t stamp() { return epoch_.fetch_add(1); }
  // Objects with a smaller stamp can be freed (W3).
  [[nodiscard]] std::uint64_t safe_before() const;
  // Names of readers whose sections delay objects with this stamp.
  [[nodiscard]] std::vector<std::string> holders_of(std::uint64_t stamp) const;

 private:
  friend class ReadSection;
  // States of a seat that is not reading; epochs lie between these values.
  static constexpr std::uint64_t kOffline = 0;
  static constexpr std::uint64_t kFree = ~std::uint64_t{0};

  struct alignas(64) Seat {  // a cache line each: readers never share one
    std::atomic<std::uint64_t> epoch{kFree};
  };
  std::array<Seat, kReadersMax> seats_;
  alignas(64) std::atomic<std::uint64_t> epoch_{1};
  // Locked by threads that start or end, and by holders_of(); never inside a section.
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

// Detects objects that wait to be freed for longer than a batch can take.
//
// A reader that announced an epoch not newer than an object's stamp has been in the same section
// since the stamp was made. It therefore suffices to remember how long the oldest stamp has been
// waiting.
class StallWatch {
 public:
  // A section lasts microseconds; a worker stopped for this long will not resume soon by itself.
  static constexpr std::int64_t kLimitNs = 1'000'000'000;

  struct Stall {
    std::vector<std::string> readers;
    std::int64_t for_ns = 0;
  };
  // `oldest` is the oldest waiting stamp, or nullopt if nothing waits; `now_ns` may have any
  // origin. Call after each collection, at least about every second.
  [[nodiscard]] std::optional<Stall> look(const Quiescence& quiescence,
                                          std::optional<std::uint64_t> oldest, std::int64_t now_ns);

 private:
  std::optional<std::uint64_t> waiting_;
  std::int64_t since_ns_ = 0;
};

}  // namespace latchkey
