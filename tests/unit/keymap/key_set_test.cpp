// The writer's treatment of rows: one row, several rows of one key, whole tables, scope sets.
#include "keymap/key_set.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "keymap/change_set.h"
#include "tests/unit/support/helpers.h"

namespace latchkey {
namespace {

using test::claim_of;
using test::Random;
using test::row;

constexpr RowState kActive = RowState::kActive;
constexpr RowState kRevoked = RowState::kRevoked;
constexpr RowState kDisabled = RowState::kDisabled;
constexpr RowState kDeleted = RowState::kDeleted;

class KeySetTest : public testing::Test {
 protected:
  // "STATE ID" of the record that decides on a key.
  [[nodiscard]] std::string says(std::string_view key) const {
    const Record* record = keys_.map.find(sha256(key));
    if (record == nullptr) return "unknown";
    const char* states[] = {"active ", "revoked ", "disabled ", "deleted "};
    return states[static_cast<std::size_t>(record->state())] + std::string(record->key_id());
  }
  template <typename... Rows>
  ChangeReport load_all(Rows... rows) {
    ChangeSet table(writer_, ChangeScope::kTable);
    (table.stage(std::move(rows)), ...);
    return table.apply();
  }

  Quiescence quiescence_;
  KeySet keys_{"api_keys", quiescence_};
  KeySetWriter writer_{keys_, quiescence_};
};

std::vector<std::size_t> counts(const ChangeReport& report) {
  return {report.rows, report.added, report.changed, report.removed};
}
using Counts = std::vector<std::size_t>;

// ---- one changed row

TEST_F(KeySetTest, FollowsARowFromItsFirstDayToItsLast) {
  EXPECT_EQ(says("k"), "unknown");
  writer_.upsert(row("1", "k"));
  EXPECT_EQ(says("k"), "active 1");
  writer_.upsert(row("1", "k", kRevoked));
  EXPECT_EQ(says("k"), "revoked 1");
  writer_.upsert(row("1", "k"));
  EXPECT_EQ(says("k"), "active 1");
  writer_.remove("1");
  EXPECT_EQ(says("k"), "unknown");
  writer_.remove("1");
  writer_.remove("never seen");
  EXPECT_EQ(writer_.rows(), 0U);
}

TEST_F(KeySetTest, CarriesItsNameAsAnEncodedClaim) {
  EXPECT_EQ(claim_of(keys_.name_claim, LATCHKEY_CLAIM_SOURCE), "api_keys");
}

TEST_F(KeySetTest, MovesARowToItsNewKey) {
  writer_.upsert(row("1", "old"));
  writer_.upsert(row("1", "new"));
  EXPECT_EQ(says("old"), "unknown");
  EXPECT_EQ(says("new"), "active 1");
  EXPECT_EQ(writer_.rows(), 1U);
}

TEST_F(KeySetTest, LetsTwoRowsSwapTheirKeys) {
  writer_.upsert(row("1", "a"));
  writer_.upsert(row("2", "b"));
  writer_.upsert(row("1", "b"));
  EXPECT_EQ(says("a"), "unknown");
  EXPECT_EQ(says("b"), "disabled 1") << "two rows hold it";
  writer_.upsert(row("2", "a"));
  EXPECT_EQ(says("a"), "active 2");
  EXPECT_EQ(says("b"), "active 1");
  EXPECT_EQ(writer_.ambiguous_digests(), 0U);
}

TEST_F(KeySetTest, TakesNoMemoryForARowThatSaysTheSame) {
  writer_.upsert(row("1", "k"));
  const Record* before = keys_.map.find(sha256("k"));
  writer_.upsert(row("1", "k"));
  EXPECT_EQ(keys_.map.find(sha256("k")), before);
  EXPECT_EQ(writer_.retired(), 0U);
}

// ---- several rows with one key

// Expected: the refusing row (deleted, disabled, revoked), among equals the smallest id; several
// active rows refuse each other.
std::string speaker(const std::map<std::string, std::pair<std::string, RowState>>& rows,
                    const std::string& key) {
  const char* names[] = {"active ", "revoked ", "disabled ", "deleted "};
  std::size_t count = 0;
  const std::string* id = nullptr;
  RowState state = kActive;
  for (const auto& [row_id, facts] : rows) {
    if (facts.first != key) continue;
    ++count;
    if (id != nullptr && facts.second <= state) continue;
    id = &row_id;
    state = facts.second;
  }
  if (id == nullptr) return "unknown";
  if (count > 1 && state == kActive) state = kDisabled;
  return names[static_cast<std::size_t>(state)] + *id;
}

TEST_F(KeySetTest, LetsARefusingRowSpeakInWhateverOrderRowsCome) {
  const std::map<std::string, std::pair<std::string, RowState>> rows = {
      {"1", {"k", kActive}}, {"2", {"k", kRevoked}}, {"3", {"k", kDeleted}}, {"4", {"k", kActive}}};
  std::vector<std::string> order = {"1", "2", "3", "4"};
  do {
    for (const std::string& id : order) writer_.upsert(row(id, "k", rows.at(id).second));
    ASSERT_EQ(says("k"), "deleted 3");
    ASSERT_EQ(writer_.ambiguous_digests(), 1U);
    auto left = rows;
    for (const std::string& id : order) {
      writer_.remove(id);
      left.erase(id);
      ASSERT_EQ(says("k"), speaker(left, "k"));
    }
    ASSERT_EQ(writer_.ambiguous_digests(), 0U);
  } while (std::ranges::next_permutation(order).found);
}

TEST_F(KeySetTest, DisablesAKeyThatTwoActiveRowsHoldUntilOneIsLeft) {
  RecordFacts f = row("1", "k");
  f.subject = "42";
  writer_.upsert(f);
  writer_.upsert(row("2", "k"));
  EXPECT_EQ(says("k"), "disabled 1");
  EXPECT_EQ(claim_of(*keys_.map.find(sha256("k")), LATCHKEY_CLAIM_SUBJECT), "(none)")
      << "nobody's key has nobody's subject";
  writer_.upsert(row("2", "elsewhere"));
  EXPECT_EQ(says("k"), "active 1");
  EXPECT_EQ(claim_of(*keys_.map.find(sha256("k")), LATCHKEY_CLAIM_SUBJECT), "42");
  writer_.upsert(row("2", "k"));
  writer_.remove("1");
  EXPECT_EQ(says("k"), "active 2");
}

TEST_F(KeySetTest, AgreesWithAModelUnderRandomChanges) {
  Random random;
  std::map<std::string, std::pair<std::string, RowState>> model;
  const auto key = [&] { return std::to_string(random.below(12)); };
  const auto state = [&] { return random.below(2) == 0 ? kActive : RowState(random.below(4)); };
  for (int step = 0; step < 5000; ++step) {
    const std::string id = std::to_string(random.below(20));
    if (random.below(3) == 0) {
      writer_.remove(id);
      model.erase(id);
    } else {
      model[id] = {key(), state()};
      writer_.upsert(row(id, model[id].first, model[id].second));
    }
    if (random.below(50) == 0) {  // sometimes all rows at once, with more changes
      for (auto& [row_id, facts] : model) facts = {key(), state()};
      ChangeSet table(writer_, ChangeScope::kTable);
      for (const auto& [row_id, facts] : model) {
        table.stage(row(row_id, facts.first, facts.second));
      }
      table.apply();
    }
    for (int k = 0; k < 12; ++k) {
      ASSERT_EQ(says(std::to_string(k)), speaker(model, std::to_string(k))) << "step " << step;
    }
    ASSERT_EQ(writer_.rows(), model.size());
  }
}

// ---- the whole table

TEST_F(KeySetTest, CountsWhatALoadChanges) {
  EXPECT_EQ(counts(load_all(row("1", "a"), row("2", "b"), row("3", "c"))), (Counts{3, 3, 0, 0}));
  EXPECT_EQ(counts(load_all(row("1", "a"), row("2", "b"), row("3", "c"))), (Counts{3, 0, 0, 0}));
  EXPECT_EQ(writer_.retired(), 0U) << "rows that stay take no memory";
  EXPECT_EQ(counts(load_all(row("1", "a"), row("2", "b", kRevoked), row("4", "d"))),
            (Counts{3, 1, 1, 1}));
  EXPECT_EQ(says("a") + ", " + says("b") + ", " + says("c") + ", " + says("d"),
            "active 1, revoked 2, unknown, active 4");
  EXPECT_EQ(counts(load_all()), (Counts{0, 0, 0, 3}));
  EXPECT_EQ(says("a"), "unknown");
}

TEST_F(KeySetTest, ShowsNothingOfALoadBeforeItsEnd) {
  load_all(row("1", "a"));
  ChangeSet table(writer_, ChangeScope::kTable);
  table.stage(row("1", "a", kRevoked));
  table.stage(row("2", "b"));
  EXPECT_EQ(says("a"), "active 1");
  EXPECT_EQ(says("b"), "unknown");
  table.apply();
  EXPECT_EQ(says("a"), "revoked 1");
  EXPECT_EQ(says("b"), "active 2");
}

TEST_F(KeySetTest, ForgetsAnAbandonedLoad) {
  load_all(row("1", "a"), row("2", "b"));
  {
    ChangeSet abandoned(writer_, ChangeScope::kTable);
    abandoned.stage(row("1", "a", kRevoked));
    abandoned.stage(row("3", "c"));
  }
  EXPECT_EQ(says("a"), "active 1");
  EXPECT_EQ(says("c"), "unknown");
  EXPECT_EQ(writer_.rows(), 2U);
  // Rows seen by the abandoned load do not count for the next one.
  EXPECT_EQ(counts(load_all(row("2", "b"))), (Counts{1, 0, 0, 1}));
  EXPECT_EQ(says("a"), "unknown");
}

TEST_F(KeySetTest, StartsALoadAfresh) {
  ChangeSet forgotten(writer_, ChangeScope::kTable);
  forgotten.stage(row("1", "a"));
  EXPECT_EQ(counts(load_all(row("2", "b"))), (Counts{1, 1, 0, 0}));
  EXPECT_EQ(says("a"), "unknown");
}

// Verdicts need proven freshness, so the map may fill while the table is being read.
TEST_F(KeySetTest, InstallsAFirstLoadAsItComes) {
  ChangeSet table(writer_, ChangeScope::kFirstTable, 500);  // half of what comes
  std::size_t seen = 0;
  for (int i = 0; i < 1000; ++i) {
    const std::string id = std::to_string(i);
    table.stage(row(id, "key " + id, i % 3 == 0 ? kRevoked : kActive));
    EXPECT_GE(keys_.map.size(), seen);
    seen = keys_.map.size();
  }
  EXPECT_GE(seen, 900U);
  EXPECT_EQ(counts(table.apply()), (Counts{1000, 1000, 0, 0}));
  EXPECT_EQ(keys_.map.size(), 1000U);
  EXPECT_EQ(says("key 999") + ", " + says("key 998"), "revoked 999, active 998");
  EXPECT_EQ(counts(load_all(row("0", "key 0", kRevoked))), (Counts{1, 0, 0, 999}));
}

TEST_F(KeySetTest, ComparesWithWhatAnAbandonedFirstLoadHasLeft) {
  const auto stage = [&](ChangeSet& table, int from, int to, RowState state) {
    for (int i = from; i < to; ++i) {
      const std::string id = std::to_string(i);
      table.stage(row(id, id, state));
    }
  };
  {
    ChangeSet abandoned(writer_, ChangeScope::kFirstTable);
    stage(abandoned, 0, 300, kActive);
  }
  const std::size_t left = writer_.rows();
  EXPECT_GE(left, 200U);
  EXPECT_EQ(keys_.map.size(), left);
  ChangeSet table(writer_, ChangeScope::kFirstTable);
  stage(table, 100, 400, kRevoked);
  const ChangeReport report = table.apply();
  EXPECT_EQ(report.rows, 300U);
  EXPECT_EQ(report.changed, left - 100) << "those that the first one had brought";
  EXPECT_EQ(report.added, 300 - (left - 100));
  EXPECT_EQ(report.removed, 100U);
  EXPECT_EQ(keys_.map.size(), 300U);
  EXPECT_EQ(says("99") + ", " + says("100") + ", " + says("399"),
            "unknown, revoked 100, revoked 399");
}

// The database guarantees unique ids. Should it lie, the map must not keep a record unknown to the
// writer.
TEST_F(KeySetTest, TakesARowThatComesTwiceInALoadOnce) {
  for (const bool first : {true, false}) {
    ChangeSet table(writer_, first ? ChangeScope::kFirstTable : ChangeScope::kTable);
    for (int i = 0; i < 200; ++i) {
      const std::string id = std::to_string(i % 100);
      table.stage(row(id, id + (i < 100 ? " old" : first ? " new" : " newer")));
    }
    const ChangeReport report = table.apply();
    EXPECT_EQ(report.rows, 200U);
    EXPECT_EQ(writer_.rows(), 100U);
    EXPECT_EQ(keys_.map.size(), 100U);
    EXPECT_EQ(says("7 old"), "unknown");
    EXPECT_EQ(says(first ? "7 new" : "7 newer"), "active 7");
  }
}

TEST_F(KeySetTest, KeepsARowThatWasWrittenWhileALoadRan) {
  load_all(row("1", "a"));
  ChangeSet table(writer_,
                  ChangeScope::kTable);  // its snapshot knows neither the new row nor the change
  writer_.upsert(row("1", "a", kRevoked));
  writer_.upsert(row("2", "b"));
  table.apply();
  EXPECT_EQ(says("a"), "revoked 1");
  EXPECT_EQ(says("b"), "active 2");
}

// A slab's mapped memory is the peak of its content.
TEST_F(KeySetTest, TakesAtMostAsMuchAgainWhenEveryRowChanges) {
  const auto load_version = [&](const std::string& version) {
    ChangeSet table(writer_, ChangeScope::kTable);
    for (int i = 0; i < 20'000; ++i) {
      const std::string id = std::to_string(i);
      RecordFacts facts = row(id, id);
      facts.subject = version;
      facts.tenant = version;
      table.stage(facts);
    }
    const ChangeReport report = table.apply();
    const KeySetMemory memory = writer_.memory();
    return std::pair(report.changed, memory.records + memory.map + memory.index);
  };
  const std::size_t first = load_version("v0").second;
  const auto [changed, second] = load_version("v1");
  EXPECT_EQ(changed, 20'000U);
  EXPECT_LE(second, 2 * first + first / 4) << "slabs grow in chunks";
  for (const char* version : {"v2", "v3", "v4"}) {
    EXPECT_EQ(load_version(version).second, second) << "what was freed is used again";
  }
  EXPECT_EQ(writer_.tenants(), 1U);
}

// This holds for any number of abandoned loads, and so for any wrap of the numbers that mark the
// records.
TEST_F(KeySetTest, NoticesWhatIsGoneAfterAnyNumberOfAbandonedLoads) {
  load_all(row("1", "k"), row("2", "gone"));
  std::size_t abandoned = 0;
  for (const std::size_t more : {253U, 1U, 1U, 1U, 1U, 254U, 255U, 256U, 257U}) {
    writer_.upsert(row("2", "gone"));
    for (std::size_t i = 0; i < more; ++i, ++abandoned) {
      ChangeSet forgotten(writer_, ChangeScope::kTable);
      forgotten.stage(row("1", "k"));
    }
    EXPECT_EQ(counts(load_all(row("1", "k"))), (Counts{1, 0, 0, 1})) << abandoned;
    EXPECT_EQ(says("k"), "active 1");
    EXPECT_EQ(says("gone"), "unknown");
  }
}

TEST_F(KeySetTest, AppliesSeveralRowsInTheSafeOrder) {
  load_all(row("1", "a"), row("2", "b"), row("3", "c"));
  ChangeSet rows(writer_, ChangeScope::kRows);
  rows.stage(row("4", "a"));  // the key moves to another row
  rows.gone("1");
  rows.stage(row("2", "b", kRevoked));
  rows.gone("5");  // was never known
  EXPECT_EQ(says("a"), "active 1");
  EXPECT_EQ(says("b"), "active 2");
  EXPECT_EQ(counts(rows.apply()), (Counts{2, 1, 1, 1}));
  EXPECT_EQ(says("a"), "active 4");
  EXPECT_EQ(says("b"), "revoked 2");
  EXPECT_EQ(says("c"), "active 3") << "a row that was not named stays";
}

TEST_F(KeySetTest, NeverAcceptsARowThatIsBothStagedAsRefusingAndGone) {
  load_all(row("1", "a"));
  ChangeSet rows(writer_, ChangeScope::kRows);
  rows.stage(row("1", "a", kRevoked));
  rows.gone("1");
  rows.apply();
  EXPECT_EQ(says("a"), "unknown");
}

// ---- scope sets

TEST_F(KeySetTest, SharesScopeSetsAndKeepsTheirSpellings) {
  EXPECT_EQ(writer_.scopes().find(R"(["b", "a"])"), nullptr);
  const ScopeSet* set = writer_.scopes().intern({"b", "a"});
  writer_.scopes().remember(R"(["b", "a"])", set);
  EXPECT_EQ(writer_.scopes().find(R"(["b", "a"])"), set);
  EXPECT_EQ(writer_.scopes().intern({"b", "a"}), set);
  EXPECT_EQ(writer_.scopes().find(R"(["b","a"])"), nullptr);
  EXPECT_EQ(claim_of(set->claim, LATCHKEY_CLAIM_SCOPE), "b a") << "as the row lists them";
  EXPECT_TRUE(set->holds("a") && set->holds("b"));
  EXPECT_FALSE(set->holds("b a") || set->holds("") || set->holds("ab"));

  const ScopeSet* none = writer_.scopes().intern({});
  EXPECT_EQ(claim_of(none->claim, LATCHKEY_CLAIM_SCOPE), "");
  EXPECT_EQ(writer_.scopes().size(), 2U);
  writer_.scopes().forget_texts();
  EXPECT_EQ(writer_.scopes().find(R"(["b", "a"])"), nullptr);
  EXPECT_EQ(writer_.scopes().size(), 2U);
}

TEST_F(KeySetTest, SweepsScopeSetsThatNoRecordHolds) {
  RecordFacts f = row("1", "k");
  f.scopes = writer_.scopes().intern({"held"});
  writer_.upsert(f);
  for (int i = 0; i < 3000; ++i) {
    const std::string name = "scope" + std::to_string(i);
    writer_.scopes().remember(name, writer_.scopes().intern({name}));
  }
  writer_.collect();
  EXPECT_EQ(writer_.scopes().size(), 1U);
  EXPECT_EQ(writer_.scopes().find("scope1"), nullptr);
  EXPECT_TRUE(keys_.map.find(sha256("k"))->scopes()->holds("held"));
}

TEST_F(KeySetTest, KeepsRecordsAndTheirScopesWhileASectionMayHoldThem) {
  Quiescence::Reader reader(quiescence_);
  RecordFacts f = row("1", "k");
  f.scopes = writer_.scopes().intern({"held"});
  writer_.upsert(f);
  {
    const ReadSection section(reader);
    const Record* record = keys_.map.find(sha256("k"));
    writer_.remove("1");
    for (int i = 0; i < 3000; ++i) (void)writer_.scopes().intern({std::to_string(i)});
    writer_.collect();
    EXPECT_EQ(writer_.retired(), 1U);
    EXPECT_EQ(record->key_id(), "1");
    EXPECT_TRUE(record->scopes()->holds("held"));
  }
  for (int i = 0; i < 3000; ++i) (void)writer_.scopes().intern({std::to_string(i)});
  writer_.collect();
  EXPECT_EQ(writer_.retired(), 0U);
  EXPECT_EQ(writer_.scopes().size(), 0U) << "the set went with its last record";
}

}  // namespace
}  // namespace latchkey
