#include "loader/postgres/copy_reader.h"

#include <endian.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <string>

namespace latchkey {
namespace {

class CopyCursor {
 public:
  explicit CopyCursor(std::string_view bytes) : bytes_(bytes) {}

  std::string_view take(std::size_t count) {
    if (bytes_.size() < count) throw PgError("a COPY message ends in the middle of a tuple");
    const std::string_view taken = bytes_.substr(0, count);
    bytes_.remove_prefix(count);
    return taken;
  }
  std::int16_t int16() {
    std::uint16_t value = 0;
    std::memcpy(&value, take(sizeof value).data(), sizeof value);
    return static_cast<std::int16_t>(be16toh(value));
  }
  std::int32_t int32() {
    std::uint32_t value = 0;
    std::memcpy(&value, take(sizeof value).data(), sizeof value);
    return static_cast<std::int32_t>(be32toh(value));
  }
  [[nodiscard]] bool at_end() const { return bytes_.empty(); }

 private:
  std::string_view bytes_;
};

constexpr std::string_view kCopySignature("PGCOPY\n\377\r\n\0", 11);

}  // namespace

void CopyReader::read(std::string_view message, const std::function<void(const Fields&)>& tuple) {
  CopyCursor cursor(message);
  if (!header_read_) {
    if (cursor.take(kCopySignature.size()) != kCopySignature) {
      throw PgError("COPY did not answer in the binary format");
    }
    if (cursor.int32() != 0) throw PgError("COPY set a flag that we do not know");
    cursor.take(static_cast<std::size_t>(cursor.int32()));  // header extension
    header_read_ = true;
  }
  while (!cursor.at_end()) {
    if (ended_) throw PgError("COPY sent more behind its end");
    const auto count = cursor.int16();
    if (count == -1) {
      ended_ = true;
      continue;
    }
    if (count < 0 || static_cast<std::size_t>(count) != fields_) {
      throw PgError("COPY sent a tuple with another number of fields than was selected");
    }
    tuple_.clear();
    for (std::size_t i = 0; i < fields_; ++i) {
      const auto length = cursor.int32();
      if (length < -1) throw PgError("COPY sent a field of an impossible length");
      if (length == -1) {
        tuple_.emplace_back(std::nullopt);
      } else {
        tuple_.emplace_back(cursor.take(static_cast<std::size_t>(length)));
      }
    }
    tuple(tuple_);
  }
}

}  // namespace latchkey
