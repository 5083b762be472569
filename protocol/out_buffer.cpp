#include "protocol/out_buffer.h"

#include <algorithm>
#include <cstring>
#include <utility>

namespace latchkey {

std::uint8_t* OutBuffer::grow(std::size_t count) {
  if (capacity_ - size_ < count) {
    const std::size_t capacity = std::max({capacity_ * 2, size_ + count, std::size_t{4096}});
    auto bytes = std::make_unique_for_overwrite<std::uint8_t[]>(capacity);
    if (size_ > 0) std::memcpy(bytes.get(), bytes_.get(), size_);
    bytes_ = std::move(bytes);
    capacity_ = capacity;
  }
  std::uint8_t* at = bytes_.get() + size_;
  size_ += count;
  return at;
}

void OutBuffer::clear() {
  size_ = 0;
  if (capacity_ <= kKept) return;
  bytes_.reset();
  capacity_ = 0;
}

void OutBuffer::append(Bytes bytes) {
  if (!bytes.empty()) std::memcpy(grow(bytes.size()), bytes.data(), bytes.size());
}

}  // namespace latchkey
