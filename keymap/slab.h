// Memory for records and the map's segments: packed, and in huge pages.
//
// Why not malloc. A look-up among millions of keys goes to two places that are in no cache. In
// pages of 4 KiB each of them costs a walk through the page tables besides: among ten million keys
// look-ups take 1.6 times as long as in pages of 2 MiB (ARCHITECTURE.md). malloc
// uses huge pages only where the machine gives them to everybody, and adds a header of 8 bytes to
// each block. And 32-byte alignment puts a record's digest into one cache line.
//
// One thread allocates and frees. A freed block is kept for the next one of its size; everything
// goes back to the system with the Slab. So memory follows the peak of what was held, not what
// comes and goes.
#pragma once

#include <array>
#include <cstddef>
#include <vector>

namespace latchkey {

class Slab {
 public:
  static constexpr std::size_t kAlignment = 32;

  Slab() = default;
  // Whatever was not freed goes with it; nothing is destroyed.
  ~Slab();
  Slab(const Slab&) = delete;
  Slab& operator=(const Slab&) = delete;

  // Throws std::bad_alloc. The memory is not cleared.
  [[nodiscard]] void* allocate(std::size_t bytes);
  // `bytes` as given to allocate().
  void free(void* block, std::size_t bytes) noexcept;

  // Taken from the system, whether in use or kept.
  [[nodiscard]] std::size_t mapped_bytes() const { return mapped_bytes_; }
  // In use, rounding included.
  [[nodiscard]] std::size_t used_bytes() const { return used_bytes_; }

  // What a block of so many bytes takes. Up to 1 MiB there are four sizes to each doubling, so that
  // rounding wastes at most a fifth, or 31 bytes; beyond, whole pages, and from 2 MiB on huge ones.
  [[nodiscard]] static std::size_t rounded(std::size_t bytes);

 private:
  struct Mapping {
    std::byte* start;
    std::size_t bytes;
  };
  struct FreeBlock {
    FreeBlock* next;
  };
  static constexpr std::size_t kSharedMax = std::size_t{1} << 20;  // larger ones are mapped alone
  static constexpr std::size_t kClasses = 56;                      // of sizes up to kSharedMax

  static std::size_t size_class(std::size_t rounded_bytes);
  std::byte* map(std::size_t bytes);

  std::array<FreeBlock*, kClasses> free_{};
  std::byte* fresh_ = nullptr;  // the part of the last chunk that was never used
  std::size_t fresh_bytes_ = 0;
  std::vector<Mapping> mappings_;
  std::size_t mapped_bytes_ = 0;
  std::size_t used_bytes_ = 0;
};

// For the standard library's containers and those like them; the slab outlives them.
template <typename T>
class SlabAllocator {
 public:
  using value_type = T;

  explicit SlabAllocator(Slab& slab) : slab_(&slab) {}
  template <typename U>
  SlabAllocator(const SlabAllocator<U>& other) : slab_(other.slab_) {}

  [[nodiscard]] T* allocate(std::size_t count) {
    static_assert(alignof(T) <= Slab::kAlignment);
    return static_cast<T*>(slab_->allocate(count * sizeof(T)));
  }
  void deallocate(T* block, std::size_t count) noexcept { slab_->free(block, count * sizeof(T)); }

  template <typename U>
  friend bool operator==(const SlabAllocator& a, const SlabAllocator<U>& b) {
    return a.slab_ == b.slab_;
  }

 private:
  template <typename U>
  friend class SlabAllocator;
  Slab* slab_;
};

}  // namespace latchkey
