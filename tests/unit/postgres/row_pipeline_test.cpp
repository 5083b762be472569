// Many rows at a time, from the wire to their meaning: order, hashes, rows that are already known.
#include "loader/postgres/row_pipeline.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <deque>
#include <map>
#include <optional>
#include <set>
#include <stdexcept>
#include <string>
#include <vector>

#include "tests/unit/support/helpers.h"

namespace latchkey {
namespace {

using testing::ElementsAre;

class RowPipelineTest : public testing::Test {
 protected:
  RowPipelineTest() {
    source_.name = "s";
    source_.table = {"public", "keys"};
    source_.scheme = Scheme::kSha256;
    source_.columns = {{Role::kId, "id"}, {Role::kKey, "key"}, {Role::kSubject, "subject"}};
    facts_.exists = facts_.is_table = true;
    facts_.columns = {{"id", "text"}, {"key", "bytea"}, {"subject", "text"}};
    facts_.unique = facts_.not_null = {"id"};
    pipeline_.emplace(source_, facts_, writer_, std::unordered_set<std::string>());
  }

  using Values = std::map<RowField, std::optional<std::string>>;
  // The values of an active row.
  static Values values(const std::string& id, const std::string& key = "k") {
    return {{kFieldId, id},
            {kFieldKey, std::string(as_text(sha256(key).bytes))},
            {kFieldState, "a"},
            {kFieldSubject, "subject of " + id}};
  }
  // As it comes over the wire; its texts live as long as this test.
  CopyReader::Fields wire(const Values& row) {
    CopyReader::Fields fields;
    for (const WireField& field : wire_fields(source_, facts_)) {
      const auto found = row.find(field.field);
      if (found == row.end() || !found->second) {
        fields.emplace_back();
      } else {
        fields.emplace_back(texts_.emplace_back(*found->second));
      }
    }
    return fields;
  }
  void add(const Values& row) { pipeline_->add(wire(row)); }

  // A copy of a row whose views may be gone.
  struct Read {
    std::string id;
    std::uint64_t hash, row_hash;
    const Record* known;
    bool has_key, usable;
  };
  std::vector<Read> run() {
    std::vector<Read> rows;
    pipeline_->run([&](RowPipeline::Row& row) {
      const auto& facts = row.meaning.facts;
      rows.push_back({std::string(row.id), row.hash, facts ? facts->row_hash : 0, row.known,
                      row.has_key, facts.has_value()});
    });
    return rows;
  }
  Read run_one(const Values& row) {
    add(row);
    const auto rows = run();
    EXPECT_EQ(rows.size(), 1U);
    return rows.at(0);
  }

  SourceConfig source_;
  TableFacts facts_;
  Quiescence quiescence_;
  KeySet keys_{"s", quiescence_};
  KeySetWriter writer_{keys_, quiescence_};
  std::deque<std::string> texts_;
  std::optional<RowPipeline> pipeline_;
};

TEST_F(RowPipelineTest, ExpectsTheFieldsOfTheQuery) {
  const auto fields = wire_fields(source_, facts_);
  EXPECT_EQ(pipeline_->fields(), fields.size());
  std::vector<std::uint32_t> types;
  for (const WireField& field : fields) types.push_back(field.type);
  EXPECT_EQ(pipeline_->types(), types);
}

TEST_F(RowPipelineTest, GivesRowsInOrderAndForgetsThem) {
  EXPECT_TRUE(run().empty());
  for (const char* id : {"3", "1", "2"}) add(values(id));
  EXPECT_EQ(pipeline_->rows(), 3U);
  std::vector<std::string> ids;
  for (const Read& row : run()) ids.push_back(row.id);
  EXPECT_THAT(ids, ElementsAre("3", "1", "2"));
  EXPECT_EQ(pipeline_->rows(), 0U);
  EXPECT_TRUE(run().empty());
  add(values("4"));
  const auto rows = run();
  ASSERT_EQ(rows.size(), 1U) << "places of earlier rows are free again";
  EXPECT_EQ(rows[0].id, "4");
}

TEST_F(RowPipelineTest, GivesTheMeaningWithItsHash) {
  add(values("7", "key of 7"));
  pipeline_->run([&](RowPipeline::Row& row) {
    ASSERT_TRUE(row.meaning.facts);
    EXPECT_EQ(row.meaning.facts->key_id, "7");
    EXPECT_EQ(row.meaning.facts->digest, sha256("key of 7"));
    EXPECT_EQ(row.meaning.facts->state, RowState::kActive);
    EXPECT_EQ(row.meaning.facts->subject, "subject of 7");
    EXPECT_EQ(row.meaning.facts->row_hash, row.hash);
    EXPECT_NE(row.hash, 0U);
    EXPECT_TRUE(row.has_key);
  });
}

// Hashes are computed in pairs, and by many at a time.
TEST_F(RowPipelineTest, GivesARowOneHashHoweverManyComeWithIt) {
  test::Random random;
  std::vector<Values> rows;
  std::vector<std::uint64_t> alone;
  for (int i = 0; i < 70; ++i) {
    Values row = values("row " + std::to_string(i));
    row[kFieldSubject] = std::string(random.below(300), 's');
    if (random.below(4) == 0) row[kFieldSubject] = std::nullopt;
    alone.push_back(run_one(row).hash);
    rows.push_back(row);
  }
  for (std::size_t begin = 0; begin < rows.size();) {
    const std::size_t count = std::min(rows.size() - begin, 1 + random.below(20));
    for (std::size_t i = 0; i < count; ++i) add(rows[begin + i]);
    const auto read = run();
    ASSERT_EQ(read.size(), count);
    for (std::size_t i = 0; i < count; ++i) EXPECT_EQ(read[i].hash, alone[begin + i]);
    begin += count;
  }
}

TEST_F(RowPipelineTest, GivesRowsThatDifferDifferentHashes) {
  std::vector<Values> rows = {values("1"), values("2"), values("1", "other key")};
  rows.push_back(values("1"));
  rows.back()[kFieldState] = "r";
  rows.push_back(values("1"));
  rows.back()[kFieldSubject] = "";
  rows.push_back(values("1"));
  rows.back()[kFieldSubject] = std::nullopt;  // NULL is no empty text
  std::set<std::uint64_t> hashes;
  for (const Values& row : rows) hashes.insert(run_one(row).hash);
  EXPECT_EQ(hashes.size(), rows.size());
}

TEST_F(RowPipelineTest, FindsTheRecordsThatAreKnown) {
  for (int i = 0; i < 50; i += 2) {
    const std::string id = std::to_string(i), key = "key " + id;
    writer_.upsert(test::row(id, key));
  }
  for (int i = 0; i < 50; ++i) add(values(std::to_string(i), "key " + std::to_string(i)));
  const auto rows = run();
  ASSERT_EQ(rows.size(), 50U);
  for (int i = 0; i < 50; ++i) {
    const Read& row = rows[static_cast<std::size_t>(i)];
    EXPECT_EQ(row.known, writer_.find(std::to_string(i))) << i;
    EXPECT_EQ(row.known != nullptr, i % 2 == 0) << i;
  }
}

TEST_F(RowPipelineTest, TellsRowsWithoutAKeyFromOthers) {
  Values without_key = values("1"), without_id = values("2");
  without_key[kFieldKey] = std::nullopt;
  without_id[kFieldId] = std::nullopt;
  Read row = run_one(without_key);
  EXPECT_FALSE(row.has_key);
  EXPECT_FALSE(row.usable);
  EXPECT_EQ(row.id, "1");
  row = run_one(without_id);
  EXPECT_FALSE(row.has_key);
  EXPECT_EQ(row.id, "");
  EXPECT_EQ(row.known, nullptr);
  EXPECT_TRUE(run_one(values("3")).has_key);
}

TEST_F(RowPipelineTest, KeepsTheHashFromARecordWhoseIdIsMadeUp) {
  const Read row = run_one(values(std::string(LATCHKEY_CLAIMS_BYTES_MAX, 'i')));
  EXPECT_TRUE(row.usable) << "it refuses its key";
  EXPECT_NE(row.hash, 0U);
  EXPECT_EQ(row.row_hash, 0U) << "audits find the row among the unusable ones";
}

TEST_F(RowPipelineTest, ThrowsIfARowHasAnotherWidth) {
  for (const int more : {-1, 1}) {
    CopyReader::Fields fields = wire(values("1"));
    fields.resize(fields.size() + static_cast<std::size_t>(more));
    RowPipeline pipeline(source_, facts_, writer_, {});
    pipeline.add(fields);
    EXPECT_THROW(pipeline.run([](RowPipeline::Row&) {}), std::runtime_error) << more;
  }
}

}  // namespace
}  // namespace latchkey
