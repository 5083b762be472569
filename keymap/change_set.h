// Changes of one source that take effect together: a whole table, or the rows that notifications
// named.
//
// A change set compares each row with the known record of that row and keeps only differences.
// Nothing is visible before apply(), and a set that is never applied has no effect (except with
// kFirstTable). apply() enforces the safe order: refusals, then rows that are gone, then active
// rows. So a key stops working before another row with the same key starts to work. While the set
// is applied, a digest that several rows share stays refused.
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
  kRows,   // the staged rows, and those passed to gone()
  kTable,  // the whole table: a row that was not staged is gone
  // The whole table while freshness was never proven, so that no answer comes from the map. Rows
  // are installed as they are staged, in the time that the load would otherwise wait for its
  // database. Without apply() they stay, and the next set compares with them.
  kFirstTable,
};

struct ChangeReport {
  std::size_t rows = 0;     // staged
  std::size_t added = 0;    // not known before
  std::size_t changed = 0;  // known before with other content
  std::size_t removed = 0;  // known before, now gone
};

class ChangeSet {
 public:
  // `writer` outlives the set. `expected_rows` avoids repeated growth during a first table; 0: no
  // estimate. Of several sets for whole tables, only the last one may be applied.
  ChangeSet(KeySetWriter& writer, ChangeScope scope, std::size_t expected_rows = 0);
  ~ChangeSet();
  ChangeSet(const ChangeSet&) = delete;
  ChangeSet& operator=(const ChangeSet&) = delete;

  // Adds a row in its current state. The views in `facts` need to live only during the call.
  // `known` is the result of the writer's find() for the row's id.
  void stage(const RecordFacts& facts) { stage(facts, writer_.find(facts.key_id)); }
  void stage(const RecordFacts& facts, const Record* known);
  // For ChangeScope::kRows: the row does not exist, or no presented key can match it. If the id is
  // staged, too, a refusing or unchanged row ends up absent, and a new or changed active row as
  // staged.
  void gone(std::string_view key_id) { gone_.emplace_back(key_id); }

  // Call it once. Lack of memory ends the process (see KeySetWriter).
  ChangeReport apply() noexcept;

 private:
  void install(std::span<const Record* const> records) noexcept;
  [[nodiscard]] std::vector<const Record*> unseen_records(std::span<const Record* const> staged);
  template <typename Each>
  void in_parts(std::span<const Record* const> records, const Each& each);

  KeySetWriter& writer_;
  ChangeScope scope_;
  std::uint8_t load_mark_ = 0;  // of a whole table: with which its rows are marked
  bool began_empty_;            // the writer had no rows, so no row can be gone at the end
  std::vector<const Record*> staged_;
  std::vector<std::string> gone_;
  ChangeReport report_;
};

}  // namespace latchkey
