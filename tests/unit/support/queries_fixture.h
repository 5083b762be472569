// A source of a preset, and the facts of a table that meets all its requirements.
#pragma once

#include <gtest/gtest.h>

#include <string>

#include "loader/postgres/mapping.h"
#include "loader/postgres/problems.h"
#include "loader/postgres/queries.h"
#include "loader/postgres/triggers.h"

namespace latchkey::test {

inline SourceConfig source_of(const char* preset_name) {
  SourceConfig source = *preset(preset_name);
  source.name = preset_name;
  return source;
}

// A table that meets all requirements of the source.
inline TableFacts good_facts(const SourceConfig& source) {
  TableFacts facts;
  facts.exists = facts.is_table = true;
  const bool raw = source.encoding == Encoding::kRaw &&
                   (source.scheme == Scheme::kHmac || source.scheme == Scheme::kSha256);
  for (const auto& [role, column] : source.columns) {
    switch (role) {
      case Role::kId: facts.columns[column] = "bigint"; break;
      case Role::kKey: facts.columns[column] = raw ? "bytea" : "text"; break;
      case Role::kEnabled: facts.columns[column] = "boolean"; break;
      case Role::kScopes: facts.columns[column] = "jsonb"; break;
      case Role::kExpiresAt:
      case Role::kNotBefore:
      case Role::kRevokedAt:
      case Role::kDisabledAt:
      case Role::kDeletedAt: facts.columns[column] = "timestamp with time zone"; break;
      default: facts.columns[column] = "text"; break;
    }
  }
  facts.unique = facts.not_null = {*source.column(Role::kId)};
  for (const std::string& name : trigger_names()) {
    facts.triggers[name] = {'A', trigger_definition(source, name), ""};
  }
  return facts;
}

class Queries : public testing::Test {
 protected:
  SourceConfig source_ = source_of("api_keys");
  TableFacts facts_ = good_facts(source_);

  void remap(const char* preset_name) {
    source_ = source_of(preset_name);
    facts_ = good_facts(source_);
  }
  void map(Role role, const std::string& column, const std::string& type) {
    source_.columns[role] = column;
    facts_.columns[column] = type;
    for (auto& [name, trigger] : facts_.triggers) {
      trigger.definition = trigger_definition(source_, name);
    }
  }
  // The paragraph for the only problem.
  std::string problem() {
    const auto found = problems(source_, facts_);
    EXPECT_EQ(found.size(), 1U);
    if (found.empty()) return "";
    EXPECT_EQ(found.front().severity(), Severity::kError);
    return found.front().number() + (" " + found.front().text);
  }
  std::string sql() { return load_sql(source_, facts_); }
};

}  // namespace latchkey::test
