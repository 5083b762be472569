// When may memory that readers could still hold be freed?
//
// A worker looks things up only inside a ReadSection: one section for a whole batch of requests.
// Outside of it the worker is offline and holds nothing. The writer never waits for readers: it
// unlinks an object, stamps it with the epoch, and frees it once every section that could have seen
// the object has ended. This is epoch-based reclamation; it is our own (and not a library's)
// because it is fifty lines that ThreadSanitizer can follow, where the known libraries use fences
// and signals that it cannot.
//
// Why it is safe. All accesses to the three kinds of atomics involved (the global epoch, a reader's
// epoch, the pointers that lead to the object) are sequentially consistent, so they have one order
// that all threads agree on.
//   Reader:  R1 announce the epoch   R2 load the pointer   ...use...   R3 go offline
//   Writer:  W1 unlink the pointer   W2 advance the epoch  W3 look at the reader's announcement
// If R1 comes before W3, the writer sees an announcement that is not newer than the object's stamp
// and keeps the object, unless the reader had read the epoch after W2; then R2 comes after W1 and
// finds the object gone. If R1 comes after W3, R2 also comes after W1: gone again. And R3 (release)
// read by W3 (acquire) makes the reader's last use happen before the freeing.
// On x86-64 such loads cost what plain loads cost; a section costs one locked store.
#pragma once

#include <array>
#include <atomic>
#include <cassert>
#include <cstddef>
#include <cstdint>

namespace latchkey {

class Quiescence {
 public:
  static constexpr std::size_t kReadersMax = 64;

  // One thread's seat, taken for the life of the thread.
  class Reader {
   public:
    explicit Reader(Quiescence& quiescence);
    ~Reader();
    Reader(const Reader&) = delete;
    Reader& operator=(const Reader&) = delete;

   private:
    friend class ReadSection;
    Quiescence& quiescence_;
    std::size_t seat_;
  };

  // After unlinking: the stamp under which the unlinked objects wait.
  [[nodiscard]] std::uint64_t stamp() { return epoch_.fetch_add(1); }
  // Objects with a smaller stamp can be freed.
  [[nodiscard]] std::uint64_t safe_before() const;

 private:
  friend class ReadSection;
  static constexpr std::uint64_t kOffline = 0;
  static constexpr std::uint64_t kFree = ~std::uint64_t{0};

  struct alignas(64) Seat {  // a cache line each: readers never share one
    std::atomic<std::uint64_t> epoch{kFree};
  };
  std::array<Seat, kReadersMax> seats_;
  alignas(64) std::atomic<std::uint64_t> epoch_{1};
};

class ReadSection {
 public:
  explicit ReadSection(Quiescence::Reader& reader)
      : seat_(reader.quiescence_.seats_[reader.seat_].epoch) {
    assert(seat_.load(std::memory_order_relaxed) == Quiescence::kOffline && "sections do not nest");
    seat_.store(reader.quiescence_.epoch_.load());
  }
  ~ReadSection() { seat_.store(Quiescence::kOffline, std::memory_order_release); }
  ReadSection(const ReadSection&) = delete;
  ReadSection& operator=(const ReadSection&) = delete;

 private:
  std::atomic<std::uint64_t>& seat_;
};

}  // namespace latchkey
