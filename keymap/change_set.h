// Changes of one source that take effect together, wherever they come from: a whole table, or the
// rows that a notification named.
//
// A change set compares each row with the record that the map holds and keeps only differences.
// Nothing is visible before apply(), and a set that is never applied leaves no trace. apply() alone
// knows the safe order: refusals, then rows that are gone, then good rows. So a key stops working
// before another row of it starts to, and while the set is applied a digest that several rows share
// stays refused.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "keymap/key_set.h"

namespace latchkey {

enum class ChangeScope {
  kRows,   // the rows staged, and those named gone()
  kTable,  // the whole table: a row that was not staged is gone
  // The same where freshness was never proven, so that no answer comes from the map: rows are
  // installed as they are staged, for which a load that waits for its database has the time.
  // Without apply() they stay, and the next set compares with them.
  kFirstTable,
};

struct ChangeReport {
  std::size_t rows = 0;     // staged
  std::size_t added = 0;    // not known before
  std::size_t changed = 0;  // known, with another content
  std::size_t removed = 0;  // known, and gone
};

class ChangeSet {
 public:
  // `writer` outlives it. `expected_rows` saves growing step by step in a first table; 0: no
  // estimate. Of several sets for whole tables, only the last one may be applied.
  ChangeSet(KeySetWriter& writer, ChangeScope scope, std::size_t expected_rows = 0);
  ~ChangeSet();
  ChangeSet(const ChangeSet&) = delete;
  ChangeSet& operator=(const ChangeSet&) = delete;

  // A row as it is now. Views need to live only as long as the call. `known` is the writer's find()
  // of the row's id.
  void stage(const RecordFacts& facts) { stage(facts, writer_.find(facts.key_id)); }
  void stage(const RecordFacts& facts, const Record* known);
  // In ChangeScope::kRows: there is no such row, or no presented key can match it. An id that is
  // staged as well ends up absent if its row refuses, else as staged.
  void gone(std::string_view key_id) { gone_.emplace_back(key_id); }

  // Once. Want of memory ends the process (see KeySetWriter).
  ChangeReport apply() noexcept;

 private:
  void install(std::span<const Record* const> records) noexcept;
  [[nodiscard]] std::vector<const Record*> unseen_records(std::span<const Record* const> staged);
  template <typename Each>
  void in_parts(std::span<const Record* const> records, const Each& each);

  KeySetWriter& writer_;
  ChangeScope scope_;
  bool began_empty_;  // then no row can be gone at its end
  std::vector<const Record*> staged_;
  std::vector<std::string> gone_;
  ChangeReport report_;
};

}  // namespace latchkey
