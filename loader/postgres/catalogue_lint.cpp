#include "loader/postgres/catalogue_lint.h"

#include <algorithm>
#include <string>

#include "loader/postgres/sql_text.h"

namespace latchkey {
namespace {

Finding finding(Lint lint, const std::string& text) {
  return {.lint = lint, .count = 0, .about = "", .text = text};
}

// Ways to change rows that fire no trigger.
void add_unnoticed_changes(const SourceConfig& source, const TableFacts& facts,
                           std::vector<Finding>& found) {
  const auto add = [&found](Lint lint, const std::string& text) {
    found.push_back(finding(lint, text));
  };
  const std::string table = source.table.display();
  const std::string section = "[[source]] \"" + source.name + "\"";
  if (facts.has_parts) {
    add(Lint::kPartitioned,
        table + " has partitions or child tables. Statements that name one of these instead of " +
            table +
            " tell us nothing: what they change is in force after the next audit only. So it is "
            "with"
            " a row that a MERGE moves to another partition. Change rows through " +
            table + ".");
  }
  if (facts.is_part) {
    add(Lint::kPartition,
        table +
            " is a partition or child of another table. Statements that name that table"
            " change rows here and tell us nothing: a key revoked so stays valid until the"
            " next audit. Set `table` of " +
            section +
            " to the parent, and run what"
            " `latchkey sql install --source " +
            source.name + "` prints.");
  }
  if (facts.subscribed) {
    add(Lint::kReplicated,
        table +
            " is filled by logical replication, which does not fire our triggers: a key"
            " revoked on the publisher stays valid until the next audit. Point `conninfo` at"
            " the publisher, or make `audit` short.");
  }
}

}  // namespace

std::vector<Finding> catalogue_findings(const SourceConfig& source, const TableFacts& facts) {
  std::vector<Finding> found;
  const auto add = [&found](Lint lint, const std::string& text) {
    found.push_back(finding(lint, text));
  };
  const std::string table = source.table.display();
  const std::string& key = *source.column(Role::kKey);

  // No index can hold a whole JWT: PostgreSQL's index entries are limited to 2704 bytes.
  if (source.scheme != Scheme::kJwt && std::ranges::find(facts.unique, key) == facts.unique.end()) {
    add(Lint::kKeyNotUnique,
        "nothing keeps two rows of " + table + " from holding the same key: column \"" + key +
            "\" has no unique index of its own (one over several columns or with a WHERE does not"
            " count). A key in several rows is refused (L301). Consider CREATE UNIQUE INDEX"
            " CONCURRENTLY ON " +
            quoted(source.table) + " (" + quote_identifier(key) + ").");
  }
  if (facts.superuser) {
    add(Lint::kSuperuser,
        "latchkeyd reads " + table +
            " as a superuser (`allow_superuser`), whose password or connection opens the whole "
            "server."
            " Give it a role"
            " that can read the mapped columns only: run what `latchkey sql grant --source " +
            source.name + "` prints, and name that role in `conninfo`.");
  }
  add_unnoticed_changes(source, facts, found);
  if (facts.bypasses_rls) {
    add(Lint::kBypassesRls,
        "the role that reads " + table +
            " has BYPASSRLS: it sees every row of every table that is protected by row level"
            " security alone. A policy for this role is enough: run what `latchkey sql grant`"
            " prints for all sources, which also takes BYPASSRLS away.");
  }
  if (facts.prepared_transactions) {
    add(Lint::kPreparedTransactions,
        "the server allows prepared transactions (max_prepared_transactions), but PostgreSQL "
        "refuses"
        " PREPARE TRANSACTION after a NOTIFY, and our triggers notify: a transaction that "
        "changes " +
            table + " cannot be prepared.");
  }
  return found;
}

}  // namespace latchkey
