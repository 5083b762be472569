// Parses a conninfo with libpq (PostgreSQL manual, "Connection Strings").
#pragma once

#include <libpq-fe.h>

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "config/conninfo.h"

namespace latchkey {

// The functions of libpq that are needed. `latchkey` reads configurations but connects to no
// database: it is not linked with libpq, which depends on LDAP and Kerberos, and loads libpq only
// to read a conninfo.
struct LibpqConninfo {
  decltype(&PQconninfoParse) parse;
  decltype(&PQconninfoFree) free;
  decltype(&PQfreemem) free_message;
};

class Conninfo {
 public:
  Conninfo(const std::string& text, const LibpqConninfo& libpq);

  [[nodiscard]] ConninfoFacts facts() const;
  // All settings, by keyword.
  [[nodiscard]] std::map<std::string, std::string> options() const;
  // nullopt if the conninfo does not set it.
  [[nodiscard]] std::optional<std::string> option(std::string_view keyword) const;

 private:
  std::unique_ptr<PQconninfoOption, decltype(&PQconninfoFree)> options_;
  std::string problem_;
};

}  // namespace latchkey
