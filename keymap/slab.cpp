#include "keymap/slab.h"

#include <sys/mman.h>

#include <algorithm>
#include <bit>
#include <cassert>
#include <cstdint>
#include <new>

// AddressSanitizer tracks only malloc's blocks. These macros mark slab blocks, so that it detects a
// reader of a freed record.
#if !defined(__SANITIZE_ADDRESS__) && defined(__has_feature)
#if __has_feature(address_sanitizer)
#define __SANITIZE_ADDRESS__ 1
#endif
#endif
#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(start, bytes) ((void)(start), (void)(bytes))
#define ASAN_UNPOISON_MEMORY_REGION(start, bytes) ((void)(start), (void)(bytes))
#endif

namespace latchkey {
namespace {

constexpr std::size_t kHugePage = std::size_t{2} << 20;
constexpr std::size_t kPage = 4096;
// Chunks grow with the memory already mapped: a source of ten keys does not take megabytes, and one
// of ten million does not take thousands of mappings.
constexpr std::size_t kChunkMin = std::size_t{64} << 10;
constexpr std::size_t kChunkMax = std::size_t{8} << 20;
constexpr std::size_t kLinearMax = 256;  // up to here, size classes are multiples of 32

std::size_t round_up(std::size_t bytes, std::size_t step) {
  return (bytes + step - 1) / step * step;
}

std::byte* map_pages(std::size_t bytes) {
  void* const start =
      mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (start == MAP_FAILED) throw std::bad_alloc();
  return static_cast<std::byte*>(start);
}

// Aligned to a huge page, because only whole huge pages can be backed by one.
std::byte* map_huge_pages(std::size_t bytes) {
  std::byte* const start = map_pages(bytes + kHugePage);
  const std::size_t before =
      (kHugePage - reinterpret_cast<std::uintptr_t>(start) % kHugePage) % kHugePage;
  if (before > 0) munmap(start, before);
  munmap(start + before + bytes, kHugePage - before);
  madvise(start + before, bytes, MADV_HUGEPAGE);  // kernels without huge pages ignore it
  return start + before;
}

}  // namespace

std::size_t Slab::rounded(std::size_t bytes) {
  if (bytes <= kLinearMax) return std::max(kAlignment, round_up(bytes, kAlignment));
  if (bytes > kSharedMax) return round_up(bytes, bytes < kHugePage ? kPage : kHugePage);
  return round_up(bytes, std::bit_floor(bytes - 1) / 4);
}

std::size_t Slab::size_class(std::size_t rounded_bytes) {
  if (rounded_bytes <= kLinearMax) return rounded_bytes / kAlignment - 1;
  const std::size_t last = rounded_bytes - 1;
  const auto doubling = static_cast<std::size_t>(std::bit_width(last)) - 1;  // 8 from 257 on
  return kLinearMax / kAlignment + (doubling - 8) * 4 + (last >> (doubling - 2) & 3);
}

Slab::~Slab() {
  for (const Mapping& mapping : mappings_) {
    ASAN_UNPOISON_MEMORY_REGION(mapping.start, mapping.bytes);
    munmap(mapping.start, mapping.bytes);
  }
}

std::byte* Slab::map(std::size_t bytes) {
  // Reserves first, so that no mapping can be lost if push_back() throws.
  if (mappings_.size() == mappings_.capacity()) mappings_.reserve(2 * mappings_.size() + 1);
  std::byte* const start = bytes % kHugePage == 0 ? map_huge_pages(bytes) : map_pages(bytes);
  mappings_.push_back({start, bytes});
  mapped_bytes_ += bytes;
  return start;
}

void* Slab::allocate(std::size_t bytes) {
  const std::size_t size = rounded(bytes);
  if (size > kSharedMax) {
    std::byte* const block = map(size);
    used_bytes_ += size;
    return block;
  }
  FreeBlock*& kept = free_[size_class(size)];
  std::byte* block = nullptr;
  if (kept != nullptr) {
    block = reinterpret_cast<std::byte*>(kept);
    ASAN_UNPOISON_MEMORY_REGION(block, sizeof(FreeBlock));
    kept = kept->next;
  } else {
    if (fresh_bytes_ < size) {
      const std::size_t chunk = std::clamp(std::bit_ceil(mapped_bytes_ / 2), kChunkMin, kChunkMax);
      const std::size_t fresh_bytes = std::max(chunk, std::bit_ceil(size));
      fresh_ = map(fresh_bytes);  // if it throws, nothing has changed
      fresh_bytes_ = fresh_bytes;
      ASAN_POISON_MEMORY_REGION(fresh_, fresh_bytes_);
    }
    block = fresh_;
    fresh_ += size;
    fresh_bytes_ -= size;
  }
  ASAN_UNPOISON_MEMORY_REGION(block, bytes);
  used_bytes_ += size;
  return block;
}

void Slab::free(void* block, std::size_t bytes) noexcept {
  const std::size_t size = rounded(bytes);
  used_bytes_ -= size;
  if (size > kSharedMax) {
    const auto mapping =
        std::ranges::find(mappings_, static_cast<std::byte*>(block), &Mapping::start);
    assert(mapping != mappings_.end());
    munmap(block, size);
    mapped_bytes_ -= size;
    mappings_.erase(mapping);
    return;
  }
  ASAN_UNPOISON_MEMORY_REGION(block, size);
  FreeBlock*& kept = free_[size_class(size)];
  kept = new (block) FreeBlock{kept};
  ASAN_POISON_MEMORY_REGION(block, size);
}

}  // namespace latchkey
