// The audit's comparison, without a database: its result for a table that changed without
// notifications, and for one that changes constantly.
#include "loader/audit.h"
#include "keymap/change_set.h"
#include "loader/postgres/row_hasher.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <string>

#include "tests/unit/support/helpers.h"

namespace latchkey {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

// PostgreSQL's answers for a table of rows with these hashes.
class Table {
 public:
  void set(const std::string& id, std::uint64_t hash) { rows_[id] = hash; }
  void erase(const std::string& id) { rows_.erase(id); }
  void tell(Audit& audit) const {
    RowSums sums;
    for (const auto& [id, hash] : rows_) sums.add(hash);
    for (std::size_t i = 0; i < RowSums::kBuckets; ++i) {
      if (sums[i].rows == 0) continue;
      // As sum(bigint) prints it: signed, and of any length.
      const auto text = std::to_string(static_cast<std::int64_t>(sums[i].sum));
      ASSERT_TRUE(audit.add_bucket(std::to_string(i), std::to_string(sums[i].rows), text));
    }
  }
  void tell_rows(Audit& audit) const {
    for (const auto& [id, hash] : rows_) {
      const auto bucket = static_cast<std::uint32_t>(RowSums::bucket_of(hash));
      if (std::ranges::count(audit.buckets(), bucket) > 0) audit.add_row(id, hash);
    }
  }

 private:
  std::map<std::string, std::uint64_t> rows_;
};

class AuditTest : public testing::Test {
 protected:
  AuditTest() {
    for (int i = 0; i < 500; ++i) know(std::to_string(i), hash_of(i));
  }
  static std::uint64_t hash_of(int i) { return std::uint64_t(i + 1) * 0x9E3779B97F4A7C15; }
  // Adds a row to the map and to the table.
  void know(const std::string& id, std::uint64_t hash) {
    hold(id, hash);
    table_.set(id, hash);
  }
  void hold(const std::string& id, std::uint64_t hash) {
    RecordFacts facts;
    facts.digest = sha256(id);
    facts.state = RowState::kActive;
    facts.key_id = id;
    facts.row_hash = hash;
    writer_.upsert(facts);
  }
  // Both steps of an audit, without changes in between.
  Audit::Result audit() {
    table_.tell(audit_);
    const auto result = audit_.compare(writer_, unusable_);
    if (result != Audit::Result::kLookCloser) return result;
    return look_closer();
  }
  Audit::Result look_closer() {
    audit_.begin_second_look();
    table_.tell_rows(audit_);
    return audit_.compare(writer_, unusable_);
  }

  Quiescence quiescence_;
  KeySet keys_{"source", quiescence_};
  KeySetWriter writer_{keys_, quiescence_};
  UnusableRows unusable_;
  Table table_;
  Audit audit_;
};

TEST_F(AuditTest, AgreesWithTheSameRows) {
  EXPECT_EQ(audit(), Audit::Result::kAgrees);
  EXPECT_FALSE(audit_.is_second_look());
}

TEST_F(AuditTest, AgreesWithNoRows) {
  for (int i = 0; i < 500; ++i) {
    writer_.remove(std::to_string(i));
    table_.erase(std::to_string(i));
  }
  EXPECT_EQ(audit(), Audit::Result::kAgrees) << "what goes is taken off the sums";
}

TEST_F(AuditTest, KeepsItsSumsThroughChangesAndLoads) {
  know("7", hash_of(7000));
  know("new", hash_of(7001));
  ChangeSet table(writer_, ChangeScope::kTable);
  for (int i = 100; i < 300; ++i) {
    const std::string id = std::to_string(i);
    RecordFacts facts;
    facts.digest = sha256(id);
    facts.key_id = id;
    facts.row_hash = hash_of(i % 2 == 0 ? i : i + 1000);
    table.stage(facts);
  }
  table.apply();
  table_ = Table();
  for (int i = 100; i < 300; ++i) {
    table_.set(std::to_string(i), hash_of(i % 2 == 0 ? i : i + 1000));
  }
  EXPECT_EQ(audit(), Audit::Result::kAgrees);
}

TEST_F(AuditTest, FindsARowThatChanged) {
  table_.set("7", hash_of(7000));
  EXPECT_EQ(audit(), Audit::Result::kDiffers);
  EXPECT_EQ(audit_.differing(), 1U);
  EXPECT_THAT(audit_.named(), ElementsAre("7"));
}

TEST_F(AuditTest, FindsARowThatIsGone) {
  table_.erase("7");
  EXPECT_EQ(audit(), Audit::Result::kDiffers);
  EXPECT_EQ(audit_.differing(), 1U);
  EXPECT_THAT(audit_.named(), ElementsAre("7"));
}

TEST_F(AuditTest, FindsARowThatIsNew) {
  table_.set("new", hash_of(7000));
  EXPECT_EQ(audit(), Audit::Result::kDiffers);
  EXPECT_THAT(audit_.named(), ElementsAre("new"));
}

TEST_F(AuditTest, FindsTwoRowsThatChangedPlaces) {
  table_.set("7", hash_of(8));
  table_.set("8", hash_of(7));
  // The hash covers the id, so no table has these rows; the sums do not detect the difference.
  EXPECT_EQ(audit(), Audit::Result::kAgrees);
}

TEST_F(AuditTest, NamesSomeOfMany) {
  for (int i = 0; i < 100; ++i) table_.set(std::to_string(i), hash_of(9000 + i));
  EXPECT_EQ(audit(), Audit::Result::kDiffers);
  EXPECT_EQ(audit_.differing(), 100U);
  EXPECT_EQ(audit_.named().size(), Audit::kNamedMax);
}

TEST_F(AuditTest, TakesNoChangeThatCameInBetweenForAMismatch) {
  table_.set("7", hash_of(7000));
  table_.tell(audit_);
  EXPECT_EQ(audit_.compare(writer_, unusable_), Audit::Result::kLookCloser);
  hold("7", hash_of(7000));  // notified and applied before the second step
  EXPECT_EQ(look_closer(), Audit::Result::kAgrees);
}

TEST_F(AuditTest, LeavesOutWhatIsToldOfDuringTheSecondLook) {
  table_.set("7", hash_of(7000));
  table_.erase("8");
  table_.set("9", hash_of(9000));
  table_.tell(audit_);
  EXPECT_EQ(audit_.compare(writer_, unusable_), Audit::Result::kLookCloser);
  audit_.begin_second_look();
  table_.tell_rows(audit_);
  audit_.told_of("7");
  audit_.told_of("8");
  EXPECT_EQ(audit_.compare(writer_, unusable_), Audit::Result::kDiffers);
  EXPECT_THAT(audit_.named(), ElementsAre("9")) << "what nobody told of is still found";
}

TEST_F(AuditTest, IsUnsureWhenMoreWasToldThanItCanKeep) {
  table_.set("7", hash_of(7000));
  table_.tell(audit_);
  EXPECT_EQ(audit_.compare(writer_, unusable_), Audit::Result::kLookCloser);
  audit_.begin_second_look();
  for (std::size_t i = 0; i <= Audit::kToldMax; ++i) audit_.told_of("x" + std::to_string(i));
  table_.tell_rows(audit_);
  EXPECT_EQ(audit_.compare(writer_, unusable_), Audit::Result::kUnsure);
}

TEST_F(AuditTest, IsUnsureWhenMoreBytesWereToldThanItCanKeep) {
  table_.set("7", hash_of(7000));
  table_.tell(audit_);
  EXPECT_EQ(audit_.compare(writer_, unusable_), Audit::Result::kLookCloser);
  audit_.begin_second_look();
  for (std::size_t i = 0; i <= Audit::kToldBytesMax / 1000; ++i) {
    audit_.told_of(std::to_string(i) + std::string(1000, 'x'));
  }
  table_.tell_rows(audit_);
  EXPECT_EQ(audit_.compare(writer_, unusable_), Audit::Result::kUnsure);
}

TEST_F(AuditTest, IsUnsureWhenNoticesWereDropped) {
  ASSERT_TRUE(audit_.add_bucket("5", std::to_string(Audit::kRowsMax + 1), "12345"));
  audit_.told_of_many();
  EXPECT_EQ(audit_.compare(writer_, unusable_), Audit::Result::kUnsure);
  EXPECT_FALSE(audit_.spoiled()) << "no load has decided";
}

TEST(UndecidedAuditsTest, AreAnAlarmAfterThreeInARow) {
  UndecidedAudits undecided;
  EXPECT_FALSE(undecided.add());
  EXPECT_FALSE(undecided.add());
  undecided.decided();
  EXPECT_EQ(undecided.in_a_row(), 0U);
  EXPECT_FALSE(undecided.add());
  EXPECT_FALSE(undecided.add());
  EXPECT_TRUE(undecided.add());
  EXPECT_FALSE(undecided.add()) << "said once";
  EXPECT_EQ(undecided.in_a_row(), 4U);
}

TEST_F(AuditTest, SaysNothingOnceItIsSpoiled) {
  table_.set("7", hash_of(7000));
  table_.tell(audit_);
  audit_.spoil();
  EXPECT_EQ(audit_.compare(writer_, unusable_), Audit::Result::kUnsure);
}

TEST_F(AuditTest, DoesWithoutASecondLookWhereNearlyEverythingDiffers) {
  ASSERT_TRUE(audit_.add_bucket("5", std::to_string(Audit::kRowsMax + 1), "12345"));
  EXPECT_EQ(audit_.compare(writer_, unusable_), Audit::Result::kDiffers);
  EXPECT_THAT(audit_.named(), IsEmpty());
}

TEST_F(AuditTest, IsUnsureWhereNearlyEverythingDiffersAndSomethingWasToldOf) {
  ASSERT_TRUE(audit_.add_bucket("5", std::to_string(Audit::kRowsMax + 1), "12345"));
  audit_.told_of("7");
  EXPECT_EQ(audit_.compare(writer_, unusable_), Audit::Result::kUnsure);
}

TEST_F(AuditTest, CountsRowsThatNoMapHolds) {
  unusable_.set("odd", hash_of(5000));
  table_.set("odd", hash_of(5000));
  EXPECT_EQ(audit(), Audit::Result::kAgrees);
  audit_ = Audit();
  unusable_.set("odd", hash_of(5001));
  EXPECT_EQ(audit(), Audit::Result::kDiffers);
  EXPECT_THAT(audit_.named(), ElementsAre("odd"));
  audit_ = Audit();
  unusable_.erase("odd");
  table_.erase("odd");
  EXPECT_EQ(audit(), Audit::Result::kAgrees);
  audit_ = Audit();
  unusable_.begin_load();
  unusable_.load("other", hash_of(1));
  unusable_.finish_load();
  EXPECT_EQ(audit(), Audit::Result::kDiffers) << "the map has one that the table has not";
  EXPECT_THAT(audit_.named(), ElementsAre("other"));
}

TEST(AuditBuckets, RefusesWhatIsNoDigest) {
  Audit audit;
  EXPECT_FALSE(audit.add_bucket("4096", "1", "1"));
  EXPECT_FALSE(audit.add_bucket("-1", "1", "1"));
  EXPECT_FALSE(audit.add_bucket("", "1", "1"));
  EXPECT_FALSE(audit.add_bucket("1", "x", "1"));
  EXPECT_FALSE(audit.add_bucket("1", "1", ""));
  EXPECT_FALSE(audit.add_bucket("1", "1", "1.5"));
  EXPECT_TRUE(audit.add_bucket("1", "1", "-170141183460469231731687303715884105728"));
}

TEST(RowHasherTest, HashesWhatRecordSendMakesOfARow) {
  RowHasher hasher;
  const std::vector<WireField> fields = {
      {kFieldId, kInt8}, {kFieldSubject, kText}, {kFieldTenant, kText}};
  const auto hash = [&](std::vector<std::optional<std::string_view>> row) {
    std::array<WireRow, 3> rows = {row, row, row};
    std::array<std::uint64_t, 3> hashes{};
    hasher(fields, rows, hashes);
    EXPECT_EQ(hashes[0], hashes[1]);
    EXPECT_EQ(hashes[0], hashes[2]);
    return hashes[0];
  };
  const std::string_view id("\0\0\0\0\0\0\0\x11", 8);
  // SELECT ('x' || encode(substr(sha256(record_send(ROW(17::bigint, 'ab'::text, NULL::text))), 1,
  // 8), 'hex'))::bit(64)::bigint
  EXPECT_EQ(static_cast<std::int64_t>(hash({id, "ab", std::nullopt})), 6278696796410286619);
  EXPECT_EQ(hash({id, "ab", std::nullopt}), hash({id, "ab", std::nullopt}));
  // NULL differs from the empty text, and no byte moves from one field to the next.
  EXPECT_NE(hash({id, "ab", std::nullopt}), hash({id, "ab", ""}));
  EXPECT_NE(hash({id, "ab", "c"}), hash({id, "a", "bc"}));
}

}  // namespace
}  // namespace latchkey
