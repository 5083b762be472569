// The meaning of one row of a key table, in any database.
#pragma once

#include <optional>
#include <string_view>

#include "keymap/record.h"
#include "loader/oddity.h"

namespace latchkey {

struct RowMeaning {
  // nullopt: the row can never match a presented key.
  std::optional<RecordFacts> facts;
  Oddities odd;
  bool short_key = false;  // stored in the clear, and short enough to be guessed
  // The row's pepper version; nullopt: NULL. For Oddity::kUnknownPepper.
  std::optional<std::string_view> pepper_version;
};

}  // namespace latchkey
