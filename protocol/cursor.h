// Reads fields out of a message body, with every bound checked.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

#include "base/bytes.h"
#include "latchkey/wire.h"

namespace latchkey {

using DecodeError = std::optional<latchkey_error>;

// A sequence of length-prefixed items whose bounds a decoder has already checked.
template <typename Length>
class ItemList {
 public:
  class Iterator {
   public:
    explicit Iterator(const std::uint8_t* at) : at_(at) {}
    std::string_view operator*() const {
      return {reinterpret_cast<const char*>(at_ + sizeof(Length)), load_le<Length>(at_)};
    }
    Iterator& operator++() {
      at_ += sizeof(Length) + load_le<Length>(at_);
      return *this;
    }
    bool operator!=(const Iterator& other) const { return at_ != other.at_; }

   private:
    const std::uint8_t* at_;
  };

  ItemList() = default;
  ItemList(const std::uint8_t* first, const std::uint8_t* end, std::size_t count)
      : first_(first), end_(end), count_(count) {}
  [[nodiscard]] Iterator begin() const { return Iterator(first_); }
  [[nodiscard]] Iterator end() const { return Iterator(end_); }
  [[nodiscard]] std::size_t size() const { return count_; }
  [[nodiscard]] bool empty() const { return count_ == 0; }

 private:
  const std::uint8_t* first_ = nullptr;
  const std::uint8_t* end_ = nullptr;
  std::size_t count_ = 0;
};
using ScopeList = ItemList<std::uint8_t>;
using KeyList = ItemList<std::uint16_t>;

// Reads from the front and remembers the first error. After an error every read is a no-op, so one
// check at the end suffices.
class Cursor {
 public:
  explicit Cursor(Bytes bytes) : at_(bytes.data()), end_(bytes.data() + bytes.size()) {}

  template <typename T>
  T integer() {
    if (!has(sizeof(T))) return T{};
    const T value = load_le<T>(at_);
    at_ += sizeof(T);
    return value;
  }

  std::string_view text(std::size_t length) {
    if (!has(length)) return {};
    const std::string_view value(reinterpret_cast<const char*>(at_), length);
    at_ += length;
    return value;
  }

  // Checks the bounds of `count` items once, so that ItemList need not.
  template <typename Length>
  ItemList<Length> items(std::size_t count) {
    const std::uint8_t* first = at_;
    for (std::size_t i = 0; i < count && !error_; ++i) text(integer<Length>());
    return error_ ? ItemList<Length>() : ItemList<Length>(first, at_, count);
  }

  void refuse(latchkey_error code) {
    if (!error_) error_ = code;
  }
  [[nodiscard]] bool at_end() const { return at_ == end_; }
  [[nodiscard]] bool failed() const { return error_.has_value(); }

  // Every decoder ends with this call.
  DecodeError finish() {
    if (!error_ && at_ != end_) error_ = LATCHKEY_TRAILING;
    return error_;
  }

 private:
  bool has(std::size_t count) {
    if (!error_ && static_cast<std::size_t>(end_ - at_) < count) error_ = LATCHKEY_TRUNCATED;
    return !error_;
  }

  const std::uint8_t* at_;
  const std::uint8_t* end_;
  DecodeError error_;
};

}  // namespace latchkey
