// Names, quotation, presets: the steps from a configuration to SQL.
#include "config/source.h"

#include <gtest/gtest.h>

#include "loader/postgres/sql_text.h"

#include <set>

namespace latchkey {
namespace {

TEST(TableNameParse, ReadsTwoNamesAsSqlWritesThem) {
  const struct {
    const char* text;
    const char* schema;  // null: refused
    const char* table;
  } cases[] = {
      {"public.api_keys", "public", "api_keys"},
      {"Public.API_Keys", "Public", "API_Keys"},  // as in the catalogue, without case folding
      {R"("public"."api_keys")", "public", "api_keys"},
      {R"("a.b"."c.d")", "a.b", "c.d"},
      {R"("a.b".c)", "a.b", "c"},
      {R"(a."c d")", "a", "c d"},
      {R"("a""b"."""")", "a\"b", "\""},
      {R"(a."x;DROP TABLE y")", "a", "x;DROP TABLE y"},
      {"sch\xC3\xA9ma.t", "sch\xC3\xA9ma", "t"},
      {"", nullptr, nullptr},
      {".", nullptr, nullptr},
      {"a", nullptr, nullptr},
      {"a.", nullptr, nullptr},
      {".b", nullptr, nullptr},
      {"a..b", nullptr, nullptr},
      {"a.b.c", nullptr, nullptr},
      {"a.b.", nullptr, nullptr},
      {R"("")", nullptr, nullptr},
      {R"(""."")", nullptr, nullptr},
      {R"("a.b)", nullptr, nullptr},
      {R"("a"b.c)", nullptr, nullptr},
      {R"(a"b".c)", nullptr, nullptr},
      {R"(a."b)", nullptr, nullptr},
      {R"(a."b"c)", nullptr, nullptr},
      {R"(a."b".c)", nullptr, nullptr},
      {R"(a."b"")", nullptr, nullptr},
      {R"(")", nullptr, nullptr},
  };
  for (const auto& c : cases) {
    SCOPED_TRACE(c.text);
    const auto name = TableName::parse(c.text);
    ASSERT_EQ(name.has_value(), c.schema != nullptr);
    if (!name) continue;
    EXPECT_EQ(name->schema, c.schema);
    EXPECT_EQ(name->table, c.table);
    const auto again = TableName::parse(quoted(*name));
    ASSERT_TRUE(again.has_value());
    EXPECT_EQ(quoted(*again), quoted(*name));
    EXPECT_EQ(name->display(), std::string(c.schema) + "." + c.table);
  }
}

TEST(Quotation, LeavesNoWayOut) {
  EXPECT_EQ(quote_identifier("id"), R"("id")");
  EXPECT_EQ(quote_identifier(""), R"("")");
  EXPECT_EQ(quote_identifier("a\"b"), R"("a""b")");
  EXPECT_EQ(quote_identifier("\"; DROP TABLE x; --"), R"("""; DROP TABLE x; --")");
  EXPECT_EQ(quote_literal("UTC"), "'UTC'");
  EXPECT_EQ(quote_literal(""), "''");
  EXPECT_EQ(quote_literal("it's"), "'it''s'");
  EXPECT_EQ(quote_literal(R"(a\)"), R"(E'a\\')");
  EXPECT_EQ(quote_literal(R"(\'; DROP)"), R"(E'\\''; DROP')");
}

TEST(Roles, HaveNamesOfTheirOwn) {
  std::set<std::string> names;
  for (std::size_t i = 0; i < kRoles; ++i) names.insert(role_name(static_cast<Role>(i)));
  EXPECT_EQ(names.size(), kRoles);
  EXPECT_FALSE(names.contains(""));
}

TEST(Presets, AreTheThreeSchemas) {
  EXPECT_EQ(preset_names().size(), 3U);
  for (const std::string& name : preset_names()) {
    const auto source = preset(name);
    ASSERT_TRUE(source.has_value()) << name;
    EXPECT_NE(source->column(Role::kId), nullptr);
    EXPECT_NE(source->column(Role::kKey), nullptr);
    EXPECT_TRUE(source->name.empty());
  }
  EXPECT_FALSE(preset("api_key").has_value());
  EXPECT_FALSE(preset("").has_value());

  const auto plain = *preset("external_credentials");
  EXPECT_EQ(plain.table.display(), "public.external_credentials");
  EXPECT_EQ(plain.scheme, Scheme::kPlain);
  EXPECT_EQ(*plain.column(Role::kSubject), "copper_id");
  EXPECT_EQ(*plain.column(Role::kDeletedAt), "deleted_at");
  EXPECT_EQ(plain.column(Role::kScopes), nullptr);

  const auto jwt = *preset("auth_api_key");
  EXPECT_EQ(jwt.table.display(), "auth.api_key");
  EXPECT_EQ(jwt.scheme, Scheme::kJwt);
  EXPECT_EQ(*jwt.column(Role::kKey), "token");
  EXPECT_EQ(*jwt.column(Role::kRevokedAt), "revoked_at");
  EXPECT_EQ(*jwt.column(Role::kExpiresAt), "expires_at");

  const auto hmac = *preset("api_keys");
  EXPECT_EQ(hmac.table.display(), "public.api_keys");
  EXPECT_EQ(hmac.scheme, Scheme::kHmac);
  EXPECT_EQ(hmac.encoding, Encoding::kRaw);
  EXPECT_EQ(*hmac.column(Role::kKeyVersion), "token_hash_key_version");
  EXPECT_EQ(*hmac.column(Role::kTenant), "tenant_id");
  EXPECT_EQ(hmac.status_revoked, std::vector<std::string>{"revoked"});
}

}  // namespace
}  // namespace latchkey
