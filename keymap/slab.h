// Allocates records and map segments, packed and in huge pages.
//
// Why not malloc. A look-up among millions of keys reads two places that are in no cache. With
// pages of 4 KiB, each read also needs a page-table walk: among ten million keys, look-ups take 1.6
// times as long as with pages of 2 MiB (ARCHITECTURE.md). malloc uses huge pages only if the
// machine enables them for all processes, and adds a header of 8 bytes to each block. Alignment to
// 32 bytes also places a record's digest within one cache line.
//
// One thread allocates and frees. A freed block is kept for the next allocation of its size; the
// Slab returns all memory to the system when it is destroyed. Memory use therefore follows the peak
// and does not grow with turnover.
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
  // Unmaps all memory, including blocks not freed, without calling destructors.
  ~Slab();
  Slab(const Slab&) = delete;
  Slab& operator=(const Slab&) = delete;

  // Throws std::bad_alloc. The memory is uninitialised.
  [[nodiscard]] void* allocate(std::size_t bytes);
  // `bytes` is the size passed to allocate().
  void free(void* block, std::size_t bytes) noexcept;

  // Memory mapped from the system: in use or kept for reuse.
  [[nodiscard]] std::size_t mapped_bytes() const { return mapped_bytes_; }
  // In use, rounding included.
  [[nodiscard]] std::size_t used_bytes() const { return used_bytes_; }

  // Size of a block after rounding. Up to 1 MiB there are four sizes per doubling, so that rounding
  // wastes at most a fifth, or 31 bytes; above, whole pages, and huge pages from 2 MiB on.
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
  static constexpr std::size_t kClasses = 56;                      // size classes up to kSharedMax

  static std::size_t size_class(std::size_t rounded_bytes);
  std::byte* map(std::size_t bytes);

  std::array<FreeBlock*, kClasses> free_{};
  std::byte* fresh_ = nullptr;  // the unused part of the last chunk
  std::size_t fresh_bytes_ = 0;
  std::vector<Mapping> mappings_;
  std::size_t mapped_bytes_ = 0;
  std::size_t used_bytes_ = 0;
};

// An allocator for standard containers; the slab must outlive them.
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
