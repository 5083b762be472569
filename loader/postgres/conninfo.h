// How libpq understands a conninfo (PostgreSQL manual, "Connection Strings").
#pragma once

#include <libpq-fe.h>

#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "config/conninfo.h"

namespace latchkey {

// What is called of libpq. `latchkey` reads configurations but asks no database: it is not linked
// with libpq, which brings LDAP and Kerberos along, and loads it only where a conninfo is read.
struct LibpqConninfo {
  decltype(&PQconninfoParse) parse;
  decltype(&PQconninfoFree) free;
  decltype(&PQfreemem) free_message;
};

class Conninfo {
 public:
  Conninfo(const std::string& text, const LibpqConninfo& libpq);

  [[nodiscard]] ConninfoFacts facts() const;
  // Nothing: it does not say.
  [[nodiscard]] std::optional<std::string> option(std::string_view keyword) const;

 private:
  std::unique_ptr<PQconninfoOption, decltype(&PQconninfoFree)> options_;
  std::string problem_;
};

}  // namespace latchkey
