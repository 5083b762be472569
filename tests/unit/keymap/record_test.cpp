// A record of one row: equality, claims, sizes.
#include "keymap/record.h"

#include <gtest/gtest.h>

#include <string>

#include "tests/unit/support/helpers.h"

namespace latchkey {
namespace {

using test::claim_of;
using test::row;

TEST(Record, NoticesAChangeOfAnyFact) {
  const ScopeSet read{.sorted = {"read"}, .claim = {}, .users = 0};
  const ScopeSet write{.sorted = {"read"}, .claim = {}, .users = 0};  // compared by identity
  RecordFacts base = row("1", "k");
  base.subject = "42";
  base.tenant = "7";
  base.metadata = "{}";
  base.scopes = &read;
  const struct {
    const char* what;
    void (*change)(RecordFacts&, const ScopeSet*);
  } cases[] = {
      {"key", [](RecordFacts& f, const ScopeSet*) { f.digest = sha256("other"); }},
      {"state", [](RecordFacts& f, const ScopeSet*) { f.state = RowState::kRevoked; }},
      {"expiry", [](RecordFacts& f, const ScopeSet*) { f.expires_us = 1; }},
      {"not before", [](RecordFacts& f, const ScopeSet*) { f.not_before_us = 1; }},
      {"id", [](RecordFacts& f, const ScopeSet*) { f.key_id = "2"; }},
      {"subject", [](RecordFacts& f, const ScopeSet*) { f.subject = "43"; }},
      {"no subject", [](RecordFacts& f, const ScopeSet*) { f.subject.reset(); }},
      {"empty tenant", [](RecordFacts& f, const ScopeSet*) { f.tenant = ""; }},
      {"no metadata", [](RecordFacts& f, const ScopeSet*) { f.metadata.reset(); }},
      {"scopes", [](RecordFacts& f, const ScopeSet* other) { f.scopes = other; }},
      {"no scopes", [](RecordFacts& f, const ScopeSet*) { f.scopes = nullptr; }},
  };
  test::Records records;
  const Record* record = records.make(base);
  EXPECT_TRUE(record->says(base));
  for (const auto& c : cases) {
    RecordFacts changed = base;
    c.change(changed, &write);
    EXPECT_FALSE(record->says(changed)) << c.what;
    EXPECT_FALSE(records.make(changed)->says(base)) << c.what;
    EXPECT_TRUE(records.make(changed)->says(changed)) << c.what;
  }
}

TEST(Record, EncodesTheClaimsOfARow) {
  RecordFacts f = row("17", "k");
  f.subject = "42";
  f.metadata = "{}";
  test::Records records;
  const Record* record = records.make(f);
  EXPECT_EQ(record->key_id(), "17");
  EXPECT_EQ(claim_of(*record, LATCHKEY_CLAIM_KEY_ID), "17");
  EXPECT_EQ(claim_of(*record, LATCHKEY_CLAIM_SUBJECT), "42");
  EXPECT_EQ(claim_of(*record, LATCHKEY_CLAIM_TENANT), "(none)");
  EXPECT_EQ(claim_of(*record, LATCHKEY_CLAIM_METADATA), "(none)") << "it stands apart";
  EXPECT_EQ(claim_of(record->metadata(), LATCHKEY_CLAIM_METADATA), "{}");
}

// A refusal made for several rows names them; callers that ask for metadata do not get the names.
TEST(Record, KeepsWhomItStandsForApartFromMetadata) {
  const std::string_view ids("17\00018", 5);
  RecordFacts f = row("17", "k", RowState::kDisabled);
  f.not_before_us = 99;
  test::Records records;
  const Record* alone = records.make(f);
  EXPECT_EQ(alone->stands_for(), std::nullopt);
  f.stands_for = ids;
  const Record* record = records.make(f);
  EXPECT_EQ(record->stands_for(), ids);
  EXPECT_TRUE(record->metadata().empty());
  EXPECT_EQ(record->not_before_us(), 99);
  EXPECT_EQ(record->allocated_bytes(),
            alone->allocated_bytes() + LATCHKEY_CLAIM_BYTES + ids.size());
  f.stands_for = "";
  EXPECT_EQ(records.make(f)->stands_for(), "");
  f.stands_for.reset();
  f.metadata = "{}";
  EXPECT_EQ(records.make(f)->stands_for(), std::nullopt);
}

TEST(Record, FitsAnAnswerUpToTheLastByte) {
  const std::size_t source_size = 8;
  // Tags and lengths of source, id, subject and expiry; and the expiry itself.
  const std::size_t room = LATCHKEY_CLAIMS_BYTES_MAX - 4 * LATCHKEY_CLAIM_BYTES - 8 - source_size;
  const std::string subject(room - 2, 's'), longer = subject + 's';
  RecordFacts f = row("17", "k");
  f.subject = subject;
  EXPECT_TRUE(f.claims_fit(source_size));
  EXPECT_FALSE(f.claims_fit(source_size + 1));
  f.metadata = "";
  EXPECT_TRUE(f.claims_fit(source_size)) << "metadata is judged apart";
  EXPECT_FALSE(f.metadata_fits(source_size));
  f.metadata.reset();
  f.subject = longer;
  EXPECT_FALSE(f.claims_fit(source_size));
}

TEST(Record, CountsTheUsersOfItsScopes) {
  const ScopeSet scopes;
  RecordFacts f = row("1", "k");
  f.scopes = &scopes;
  test::Records records;
  const Record* one = records.make(f);
  const Record* two = records.make(f);
  EXPECT_EQ(scopes.users, 2U);
  records.destroy(one);
  records.destroy(two);
  EXPECT_EQ(scopes.users, 0U);
}

}  // namespace
}  // namespace latchkey
