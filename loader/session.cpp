#include "loader/session.h"

#include "loader/sql_text.h"

namespace latchkey {

std::string session_settings(bool by_policy) {
  return std::string("SET search_path = pg_catalog, pg_temp;") +
         (by_policy ? "SET row_security = on;" : "SET row_security = off;") +
         "SET client_encoding = 'UTF8';"
         "SET DateStyle = ISO, YMD;"
         "SET IntervalStyle = 'postgres';"
         "SET TimeZone = 'UTC';"
         "SET bytea_output = 'hex';"
         "SET extra_float_digits = 1;"
         "SET quote_all_identifiers = off;"
         "SET lock_timeout = '2s';"
         "SET statement_timeout = 0;" +
         in_catalog(
             "SELECT pg_catalog.set_config(s.name, '0', false) FROM pg_catalog.pg_settings s"
             " WHERE s.name {=} 'idle_session_timeout';");
}

std::vector<std::string> SessionOwner::before(const std::string& source, const TableFacts& facts) {
  // Where a table and its parts have several owners, it shares a session with no other table.
  const bool one = facts.owners.find(' ') == std::string::npos;
  const std::string owner = one ? facts.owners : facts.owners + " of " + source;
  std::vector<std::string> statements;
  const bool other = !owner_.empty() && owner_ != owner;
  if (other) statements.emplace_back("DISCARD ALL");
  if (other || by_policy_ != facts.by_policy) {
    statements.push_back(session_settings(facts.by_policy));
  }
  owner_ = owner;
  by_policy_ = facts.by_policy;
  return statements;
}

}  // namespace latchkey
