// The hash by which an audit decides whether a row is unchanged since it was read.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "keys/digest.h"
#include "loader/postgres/row.h"

namespace latchkey {

// The hash of one row: the first eight bytes of the SHA-256 of its record_send() form. So it covers
// all fields that a load reads, in the bytes in which they are read, and both sides can compute it.
class RowHasher {
 public:
  // Computes hashes[i] of rows[i]; both have the same size, and all rows the same fields.
  void operator()(const std::vector<WireField>& fields, std::span<const WireRow> rows,
                  std::span<std::uint64_t> hashes);

 private:
  std::vector<char> bytes_;
  std::vector<std::string_view> messages_;
  std::vector<Digest> digests_;
};

}  // namespace latchkey
