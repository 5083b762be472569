// The DDL that tells us of changes, and the role that may read them.
//
// Printed by `latchkey sql`, run by the operator, never by us.
//
// Statement-level triggers with transition tables: a statement that changes a million rows calls
// the function once, and ids travel many to a notification. An UPDATE counts only if one of the
// mapped columns changed, so that writing last_used_at notifies nobody. Notifications carry ids,
// nothing else: everybody on the database can read them.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "loader/source.h"

namespace latchkey {

// The channel that all triggers notify on. Payload, JSON: {"t": table, "ids": ["1", ...]}, or
// {"t": table, "all": true} where the whole table must be read again.
constexpr const char* kChangeChannel = "latchkey";

[[nodiscard]] const std::vector<std::string>& trigger_names();
// What pg_trigger.tgtype says of the trigger of this name when it is as we made it.
[[nodiscard]] int trigger_type(std::string_view name);
// Changes with anything that changes what the triggers do for this source; stands in the function's
// text, so that an outdated installation is recognised.
[[nodiscard]] std::string trigger_fingerprint(const SourceConfig& source);

[[nodiscard]] std::string install_sql(const SourceConfig& source);
[[nodiscard]] std::string uninstall_sql(const SourceConfig& source);
[[nodiscard]] std::string grant_sql(const SourceConfig& source, std::string_view role);

// One notification on kChangeChannel, understood.
struct ChangeNotice {
  std::string table;
  bool all = false;
  std::vector<std::string> ids;

  // Nothing if the payload is not what a trigger of ours sends.
  [[nodiscard]] static std::optional<ChangeNotice> parse(std::string_view payload);
};

}  // namespace latchkey
