// The function that the triggers of a table call: it names the rows that a statement has changed.
#pragma once

#include <array>
#include <string>
#include <utility>

#include "config/source.h"

namespace latchkey {

// The text form of a value depends on these settings (PostgreSQL manual, "Client Connection
// Defaults"): the session that writes the table may have set any of them.
constexpr std::array<std::pair<const char*, const char*>, 8> kFunctionSettings = {{
    {"search_path", "pg_catalog, pg_temp"},
    {"DateStyle", "iso, ymd"},
    {"IntervalStyle", "postgres"},
    {"TimeZone", "UTC"},
    {"bytea_output", "hex"},
    {"extra_float_digits", "1"},
    {"quote_all_identifiers", "off"},
    {"lc_monetary", "C"},
}};

// Its body, in PL/pgSQL.
[[nodiscard]] std::string function_body(const SourceConfig& source);

}  // namespace latchkey
