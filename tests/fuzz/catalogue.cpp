// The server's description of a table, and names that any role with CREATE can choose.
//
// - Bytes that are not a valid description fail as CatalogueError.
// - For all facts and names, our statements qualify everything that they use
// (tests/unit/support/sql_tokens.h):
//   no name can end its quotation marks.
#include <nlohmann/json.hpp>

#include "loader/postgres/catalogue.h"
#include "loader/postgres/problems.h"
#include "loader/postgres/queries.h"
#include "loader/postgres/sql_text.h"
#include "loader/postgres/triggers.h"
#include "loader/postgres/version.h"
#include "tests/fuzz/fuzz.h"
#include "tests/unit/support/sql_tokens.h"

namespace {

using namespace latchkey;

std::string name_from(FuzzedDataProvider& input) {
  std::string name = fuzz::short_text(input, 12);
  std::erase(name, '\0');
  return name.empty() ? "n" : name;
}

SourceConfig source_from(FuzzedDataProvider& input) {
  SourceConfig source;
  source.name = "fuzz";
  source.table = {name_from(input), name_from(input)};
  source.scheme = input.PickValueInArray(
      {Scheme::kSha256, Scheme::kPlain, Scheme::kHmac, Scheme::kJwt, Scheme::kJwtJti});
  source.encoding = input.PickValueInArray({Encoding::kRaw, Encoding::kHex, Encoding::kBase64});
  for (std::size_t i = 0; i < kRoles; ++i) {
    const auto role = static_cast<Role>(i);
    const bool needed = role == Role::kId || role == Role::kKey;
    if (!needed && input.ConsumeBool()) continue;
    // The role's name as the column, so that facts match; or any name.
    source.columns[role] = input.ConsumeBool() ? role_name(role) : name_from(input);
  }
  if (input.ConsumeBool()) source.status_revoked.push_back(name_from(input));
  if (input.ConsumeBool()) source.time_zone = name_from(input);
  return source;
}

void check_statement(int number, const SourceConfig& source, const TableFacts& facts) {
  (void)problems(source, facts);
  // One of the statements: parsing one takes longer than everything else here.
  std::string sql;
  switch (number) {
    case 0: sql = load_sql(source, facts); break;
    case 1: sql = digest_sql(source, facts); break;
    case 2: sql = digest_rows_sql(source, facts, {1}); break;
    case 3:
      if (source.column(Role::kLastUsedAt) == nullptr) return;
      sql = last_used_sql(source, facts);
      break;
    default: sql = reread_sql(source, facts);
  }
  const auto unnamed = test::unnamed(sql);
  if (!unnamed.empty()) {
    std::fprintf(stderr, "%s\nin %s\n", unnamed.front().c_str(), sql.c_str());
    FUZZ_CHECK(false);
  }
  FUZZ_CHECK(sql.find(quoted(source.table)) != std::string::npos);
  FUZZ_CHECK(sql.find(quote_identifier(*source.column(Role::kId))) != std::string::npos);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  FuzzedDataProvider input(data, size);
  const SourceConfig source = source_from(input);
  const auto number = input.ConsumeIntegralInRange<int>(0, 4);
  const std::string answer = input.ConsumeRemainingBytesAsString();
  TableFacts facts;
  try {
    for (const std::string& version : versions_from_json(answer, 2)) (void)version;
  } catch (const CatalogueError&) {
  }
  try {
    facts = TableFacts::from_json(answer);
  } catch (const CatalogueError&) {
    for (const auto& [role, column] : source.columns) facts.columns[column] = "text";
  }
  check_statement(number, source, facts);
  return 0;
}
