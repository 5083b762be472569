// The binary format of COPY.
#pragma once

#include <cstddef>
#include <functional>
#include <optional>
#include <string_view>
#include <vector>

#include "loader/postgres/errors.h"

namespace latchkey {

// Splits the CopyData messages of COPY ... (FORMAT binary) into tuples (PostgreSQL manual, COPY,
// "Binary Format").
class CopyReader {
 public:
  using Fields = std::vector<std::optional<std::string_view>>;
  explicit CopyReader(std::size_t fields) : fields_(fields) {}

  // Calls `tuple` for each tuple in the message; throws PgError if the message is malformed.
  void read(std::string_view message, const std::function<void(const Fields&)>& tuple);
  // True if the trailer has arrived. Without it tuples may be missing.
  [[nodiscard]] bool ended() const { return ended_; }

 private:
  std::size_t fields_;
  Fields tuple_;
  bool header_read_ = false;
  bool ended_ = false;
};

}  // namespace latchkey
