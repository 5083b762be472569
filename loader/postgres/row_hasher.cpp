#include "loader/postgres/row_hasher.h"

#include <endian.h>

#include <algorithm>
#include <cstring>

namespace latchkey {
namespace {

char* put_be32(char* at, std::uint32_t value) {
  const std::uint32_t bytes = htobe32(value);
  std::memcpy(at, &bytes, sizeof bytes);
  return at + sizeof bytes;
}

}  // namespace

// record_send(): the number of fields, then for each field its type, its length (-1: null) and
// bytes.
void RowHasher::operator()(const std::vector<WireField>& fields, std::span<const WireRow> rows,
                           std::span<std::uint64_t> hashes) {
  const std::size_t overhead = sizeof(std::uint32_t) * (1 + 2 * fields.size());
  std::size_t size = overhead * rows.size();
  for (const WireRow& row : rows) {
    for (const auto& value : row) size += value ? value->size() : 0;
  }
  if (bytes_.size() < size) bytes_.resize(size);
  messages_.clear();
  char* at = bytes_.data();
  for (const WireRow& row : rows) {
    const char* begin = at;
    at = put_be32(at, static_cast<std::uint32_t>(row.size()));
    for (std::size_t i = 0; i < row.size(); ++i) {
      const bool there = row[i] && is_hashed(fields[i].field);
      at = put_be32(at, fields[i].type);
      at = put_be32(at, there ? static_cast<std::uint32_t>(row[i]->size()) : ~std::uint32_t{0});
      if (there) at = std::copy(row[i]->begin(), row[i]->end(), at);
    }
    messages_.emplace_back(begin, static_cast<std::size_t>(at - begin));
  }
  digests_.resize(rows.size());
  sha256(messages_, digests_);
  for (std::size_t i = 0; i < rows.size(); ++i) {
    hashes[i] = 0;
    for (std::size_t j = 0; j < sizeof hashes[i]; ++j) {
      hashes[i] = hashes[i] << 8 | digests_[i].bytes[j];
    }
  }
}

}  // namespace latchkey
