// Scopes of a row: their notations, sizes and sharing, and the rows refused for them.
#include "loader/postgres/row.h"

#include <gtest/gtest.h>

#include <map>
#include <vector>

#include "tests/unit/support/helpers.h"
#include "tests/unit/support/row_reading.h"

namespace latchkey {
namespace {

using test::claim_of;
using test::RowReading;

TEST_F(RowReading, ReadsScopesFromJson) {
  with_scopes("jsonb");
  const std::pair<std::optional<std::string_view>, const char*> cases[] = {
      {R"(["read", "write"])", "read write"},
      {R"(["write","read"])", "write read"},
      {R"(["a:b/c", "caf\u00e9"])", "a:b/c caf\xC3\xA9"},
      {"[]", ""},
      {"null", ""},
      {std::nullopt, ""},
      {" [ ] ", ""},
  };
  for (const auto& [text, scope] : cases) {
    row_[kFieldScopes] = text;
    const Record* record = read();
    ASSERT_NE(record->scopes(), nullptr);
    EXPECT_EQ(claim_of(record->scopes()->claim, LATCHKEY_CLAIM_SCOPE), scope);
    EXPECT_EQ(record->state(), RowState::kActive);
    expect_nothing_odd();
  }
  row_[kFieldScopes] = R"(["write","read"])";
  EXPECT_TRUE(read()->scopes()->holds("read"));
  EXPECT_FALSE(read()->scopes()->holds("rea"));
}

TEST_F(RowReading, ReadsScopesFromWords) {
  with_scopes("text");
  const std::pair<std::optional<std::string_view>, const char*> cases[] = {
      {"read write", "read write"},
      {"read,write", "read write"},
      {" a ,\tb\r\n, ,c ", "a b c"},
      {"", ""},
      {std::nullopt, ""},
      {" , ", ""},
  };
  for (const auto& [text, scope] : cases) {
    row_[kFieldScopes] = text;
    const Record* record = read();
    EXPECT_EQ(claim_of(record->scopes()->claim, LATCHKEY_CLAIM_SCOPE), scope);
    EXPECT_EQ(record->state(), RowState::kActive);
    expect_nothing_odd();
  }
}

TEST_F(RowReading, RefusesScopesThatAreNoListOfWords) {
  with_scopes("jsonb");
  for (const char* bad : {R"({"read":true})", R"("read")", "7", "true", R"(["read",7])",
                          R"(["read",["write"]])", R"(["read",null])", "[", "read write"}) {
    row_[kFieldScopes] = bad;
    EXPECT_EQ(read()->state(), RowState::kDisabled) << bad;
    expect_odd(Oddity::kBadScopes);
    EXPECT_EQ(read()->state(), RowState::kDisabled) << "again: " << bad;
  }
  row_[kFieldScopes] = "7";
  row_[kFieldState] = "r";
  EXPECT_EQ(read()->state(), RowState::kRevoked);
  const std::string deep(20'000, '[');
  row_[kFieldScopes] = deep;
  EXPECT_EQ(read()->state(), RowState::kRevoked);
  expect_odd(Oddity::kBadScopes);
}

// The server cuts longer texts. The rest may look like valid scopes, so the row is refused.
TEST_F(RowReading, RefusesScopesThatWereCut) {
  for (const char* type : {"jsonb", "text"}) {
    with_scopes(type);
    std::string cut = "read ";
    cut.resize(static_cast<std::size_t>(kScopesBytesMax) + 1, ' ');
    row_[kFieldScopes] = cut;
    EXPECT_EQ(read()->state(), RowState::kDisabled) << type;
    expect_odd(Oddity::kClaimsTooLong);
    cut.pop_back();
    row_[kFieldScopes] = cut;
    EXPECT_EQ(read()->state(),
              std::string_view(type) == "text" ? RowState::kActive : RowState::kDisabled);
  }
}

TEST_F(RowReading, LeavesOutScopesThatNoRequestCanName) {
  with_scopes("jsonb");
  const std::string long_scope = "[\"read\", \"" + std::string(256, 'x') + "\"]";
  for (const std::string_view text :
       {std::string_view(R"(["read", ""])"), std::string_view(R"(["read", "a b"])"),
        std::string_view(R"(["read", "a\tb"])"), std::string_view(R"(["\u007f", "read"])"),
        std::string_view(R"(["\u0000", "read"])"), std::string_view(long_scope)}) {
    for (int time = 0; time < 2; ++time) {  // the second row is counted like the first
      row_[kFieldScopes] = text;
      const Record* record = read();
      EXPECT_EQ(record->state(), RowState::kActive);
      EXPECT_EQ(claim_of(record->scopes()->claim, LATCHKEY_CLAIM_SCOPE), "read") << text;
      expect_odd(Oddity::kUnusableScope);
    }
  }
  const std::string longest = "[\"" + std::string(255, 'x') + "\"]";
  row_[kFieldScopes] = longest;
  EXPECT_TRUE(read()->scopes()->holds(std::string(255, 'x')));
  expect_nothing_odd();
}

// The owner of a row must not be able to change the scopes of other rows.
TEST_F(RowReading, ReadsScopesTheSameWhateverOtherRowsSaid) {
  with_scopes("jsonb");
  const std::string poison = R"(["[\"admin\"]", ""])";  // scopes: ["admin"] (one word) and ""
  row_[kFieldScopes] = poison;
  (void)read();
  row_[kFieldScopes] = R"(["admin"])";
  const Record* second = read();
  EXPECT_EQ(claim_of(second->scopes()->claim, LATCHKEY_CLAIM_SCOPE), "admin");
  row_[kFieldScopes] = R"(["[]", ""])";
  (void)read();
  row_[kFieldScopes] = "[]";
  const Record* fourth = read();
  EXPECT_EQ(claim_of(fourth->scopes()->claim, LATCHKEY_CLAIM_SCOPE), "");
}

// A row's scopes are the same after any other rows, in any order. The texts collide with each
// other, with possible keys of a cache, and with themselves after cleaning.
TEST_F(RowReading, ReadsScopesTheSameAfterAnyOthers) {
  std::vector<std::string> texts;
  for (const std::string word : {"admin", "admin ", "a", "[]", "\"", "{"}) {
    for (const std::string before : {"", " ", "\x01", "\x02", "[\"", "{\"", "\"", "\xC2\xA0"}) {
      for (const std::string after : {"", " ", "\x01", "\x02", "\"]", "\"}", ",", " \x02"}) {
        texts.push_back(before + word + after);
      }
    }
  }
  const auto said = [&](RowReader& reader, const std::string& text) {
    row_[kFieldScopes] = text;
    OddityCounts counts{};
    const RowMeaning meaning = reader.read(row_);
    meaning.odd.count_in(counts);
    const auto& facts = meaning.facts;
    std::string told = facts->state == RowState::kActive ? "active" : "refused";
    for (const std::uint64_t odd : counts) told += " " + std::to_string(odd);
    return facts->scopes == nullptr ? told
                                    : told + claim_of(facts->scopes->claim, LATCHKEY_CLAIM_SCOPE);
  };
  test::Random random;
  for (const char* type : {"text", "jsonb"}) {
    with_scopes(type);
    std::map<std::string, std::string> alone;
    for (const std::string& text : texts) {
      ScopeSets scopes;
      RowReader reader(source_, facts_, scopes, {});
      alone[text] = said(reader, text);
    }
    RowReader reader(source_, facts_, scopes_, {});
    for (int round = 0; round < 20'000; ++round) {
      const std::string& text = texts[random.below(texts.size())];
      ASSERT_EQ(said(reader, text), alone[text]) << type << ": " << text;
    }
  }
}

TEST_F(RowReading, TakesTextThatBeginsLikeJsonForJson) {
  with_scopes("text");
  const struct {
    const char* text;
    const char* scopes;  // null: refused
  } cases[] = {
      {R"(["read","write"])", "read write"},
      {R"(  ["read", "write"] )", "read write"},
      {R"([])", ""},
      {R"(read "admin")", nullptr},
      {R"({"scopes":["read"],"comment":"may not use admin api"})", nullptr},
      {R"({read,write})", nullptr},
      {R"("read")", nullptr},
      {R"("read admin)", nullptr},
      {R"([read, write])", nullptr},
      {R"(["read"] admin)", nullptr},
      {R"([["read"]])", nullptr},
      {R"(, ["read"])", nullptr},
      {"\xEF\xBB\xBF[\"read\"]", "read"},
      {"\xEF\xBB\xBF{\"comment\": \"may not use admin api\"}", nullptr},
      {"\v\f{\"comment\": \"may not use admin api\"}", nullptr},
      {"\xC2\xA0{\"comment\": \"may not use admin api\"}", nullptr},
  };
  for (const auto& [text, scopes] : cases) {
    row_[kFieldScopes] = text;
    const Record* record = read();
    EXPECT_EQ(record->state(), scopes == nullptr ? RowState::kDisabled : RowState::kActive) << text;
    if (scopes == nullptr) {
      EXPECT_EQ(record->scopes(), nullptr) << text;
      expect_odd(Oddity::kBadScopes);
    } else {
      EXPECT_EQ(claim_of(record->scopes()->claim, LATCHKEY_CLAIM_SCOPE), scopes) << text;
    }
  }
}

TEST_F(RowReading, SharesEqualScopeSets) {
  with_scopes("jsonb");
  row_[kFieldScopes] = R"(["a", "b"])";
  const Record* first = read();
  row_[kFieldScopes] = R"(["a","b"])";
  const Record* second = read();
  EXPECT_EQ(first->scopes(), second->scopes());
  row_[kFieldScopes] = R"(["a b"])";
  EXPECT_NE(read()->scopes(), first->scopes()) << "one scope with a space is not two";
}

TEST_F(RowReading, RefusesScopesThatAreTooLongAltogether) {
  with_scopes("text");
  std::string scopes;
  for (int i = 0; i < 20'000; ++i) scopes += "scope" + std::to_string(i) + " ";  // over 64 KiB
  row_[kFieldScopes] = scopes;
  const Record* record = read();
  EXPECT_EQ(record->state(), RowState::kDisabled);
  EXPECT_EQ(record->scopes(), nullptr);
  expect_odd(Oddity::kClaimsTooLong);
}

TEST_F(RowReading, TakesNoWordsOutOfOtherNotations) {
  with_scopes("text");
  for (const char* bad : {R"(1 ["a", admin ])", R"(/* "x" */ admin)", "(read admin write)",
                          "'read admin write'", "- read\n- admin", "<s>not for admin please</s>",
                          "read {admin}", "read \\ admin", "`admin`", "read >admin"}) {
    row_[kFieldScopes] = bad;
    EXPECT_EQ(read()->state(), RowState::kDisabled) << bad;
    expect_odd(Oddity::kBadScopes);
  }
  for (const char* good :
       {"read:keys https://example.com/auth/x.y write-all *", "a=b a!b a+b ~a"}) {
    row_[kFieldScopes] = good;
    EXPECT_EQ(read()->state(), RowState::kActive) << good;
    expect_nothing_odd();
  }
}

}  // namespace
}  // namespace latchkey
