// What one row of a key table says, whatever database it is in.
#pragma once

#include <optional>
#include <string_view>

#include "keymap/record.h"
#include "loader/oddity.h"

namespace latchkey {

struct RowMeaning {
  // Nothing: the row can never match a presented key.
  std::optional<RecordFacts> facts;
  Oddities odd;
  bool short_key = false;  // stored in the clear, and short enough to be guessed
  // The pepper version that it names; nothing: NULL. For Oddity::kUnknownPepper.
  std::optional<std::string_view> pepper_version;
};

}  // namespace latchkey
