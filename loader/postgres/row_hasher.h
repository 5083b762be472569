// The hash by which an audit tells whether a row is still the one that was read.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "keys/digest.h"
#include "loader/postgres/row.h"

namespace latchkey {

// The hash of one row: the first eight bytes of the SHA-256 of what record_send() makes of it. So
// it covers all that a load reads, in the bytes in which it is read, and both sides compute it.
class RowHasher {
 public:
  // hashes[i] of rows[i]; as many, all of the same fields.
  void operator()(const std::vector<WireField>& fields, std::span<const WireRow> rows,
                  std::span<std::uint64_t> hashes);

 private:
  std::vector<char> bytes_;
  std::vector<std::string_view> messages_;
  std::vector<Digest> digests_;
};

}  // namespace latchkey
