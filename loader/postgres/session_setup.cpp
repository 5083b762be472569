#include "loader/postgres/session_setup.h"

#include "loader/postgres/sql_text.h"

namespace latchkey {

std::string session_settings(bool by_policy) {
  // The transaction of these statements has begun with the role's defaults.
  return std::string(
             "SET transaction_isolation = 'read committed';"
             "SET transaction_deferrable = off;"
             "SET search_path = pg_catalog, pg_temp;") +
         (by_policy ? "SET row_security = on;" : "SET row_security = off;") +
         "SET client_encoding = 'UTF8';"
         "SET DateStyle = ISO, YMD;"
         "SET IntervalStyle = 'postgres';"
         "SET TimeZone = 'UTC';"
         "SET bytea_output = 'hex';"
         "SET extra_float_digits = 1;"
         "SET quote_all_identifiers = off;"
         "SET lc_monetary = 'C';"
         // PostgreSQL estimates our catalogue queries as so expensive that it would JIT-compile
         // them, which takes a thousand times as long as answering them.
         "SET jit = off;"
         // Prepared queries are planned once: planning takes longer than answering.
         "SET plan_cache_mode = force_generic_plan;"
         "SET lock_timeout = '2s';"
         "SET statement_timeout = 0;"
         "SET idle_in_transaction_session_timeout = 0;"
         // A role or database may have other defaults. Serializable transactions can be refused,
         // deferrable ones wait for all others, and last_used_at is written if it is mapped.
         "SET default_transaction_isolation = 'read committed';"
         "SET default_transaction_read_only = off;"
         "SET default_transaction_deferrable = off;" +
         in_catalog(
             "SELECT pg_catalog.set_config(s.name, '0', false) FROM pg_catalog.pg_settings s"
             " WHERE s.name {=} ANY (ARRAY['idle_session_timeout', 'transaction_timeout']);");
}

std::string notify_sql() {
  return "SELECT pg_catalog.pg_notify($1, $2), pg_catalog.set_config('lock_timeout', '0', true)";
}

std::vector<std::string> SessionOwner::before(const std::string& source, const TableFacts& facts) {
  // If a table and its parts have several owners, it shares a session with no other table.
  const bool one = facts.owners.find(' ') == std::string::npos;
  const std::string owner = one ? facts.owners : facts.owners + " of " + source;
  std::vector<std::string> statements;
  const bool other = !owner_.empty() && owner_ != owner;
  if (other) statements.emplace_back(kDiscardAll);
  if (other || by_policy_ != facts.by_policy) {
    statements.push_back(session_settings(facts.by_policy));
  }
  owner_ = owner;
  by_policy_ = facts.by_policy;
  return statements;
}

}  // namespace latchkey
