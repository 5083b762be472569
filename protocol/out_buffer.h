// The bytes of replies until they are sent.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "base/bytes.h"

namespace latchkey {

// Grows by doubling. clear() keeps at most kKept bytes: typical replies need no allocation, and one
// large reply does not enlarge its connection for ever.
class OutBuffer {
 public:
  // Appends `count` uninitialised bytes; invalidates pointers from earlier calls.
  std::uint8_t* grow(std::size_t count);
  void append(Bytes bytes);
  static constexpr std::size_t kKept = std::size_t{64} << 10;
  void clear();
  [[nodiscard]] std::size_t capacity() const { return capacity_; }
  [[nodiscard]] std::size_t size() const { return size_; }
  [[nodiscard]] std::uint8_t* data() { return bytes_.get(); }
  [[nodiscard]] Bytes bytes() const { return {bytes_.get(), size_}; }

 private:
  std::unique_ptr<std::uint8_t[]> bytes_;
  std::size_t size_ = 0;
  std::size_t capacity_ = 0;
};

}  // namespace latchkey
