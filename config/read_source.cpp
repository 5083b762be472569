#include "config/read_source.h"

#include <cstddef>
#include <optional>
#include <set>
#include <string>

#include "config/settings_text.h"

namespace latchkey {
namespace {

SourceConfig read_preset(const Section& section) {
  if (const auto name = section.text("preset")) {
    const auto known = preset(*name);
    if (!known) {
      const auto names = preset_names();
      const std::set<std::string> choices(names.begin(), names.end());
      section.refuse("there is no preset \"" + *name + "\"." + did_you_mean(*name, choices) +
                         " Leave `preset` out to map the columns of any other table yourself.",
                     section.find("preset"));
    }
    return *known;
  }
  return {};
}

void read_table(const Section& section, SourceConfig& source) {
  if (const auto text = section.text("table")) {
    const auto table = TableName::parse(*text);
    if (!table || !is_sql_name(table->schema) || !is_sql_name(table->table)) {
      section.refuse(
          "`table` must be schema.table, such as \"public.api_keys\", without control or"
          " format characters, which nobody could see.",
          section.find("table"));
    }
    source.table = *table;
  }
  if (source.table.table.empty()) {
    section.refuse("`table` is missing. Name a preset, or write table = \"schema.table\".");
  }
}

void read_columns(const Section& section, SourceConfig& source) {
  for (std::size_t i = 0; i < kRoles; ++i) {
    const Role role = static_cast<Role>(i);
    const toml::node* node = section.find(role_name(role));
    if (node == nullptr) continue;
    if (const auto mapped = node->value_exact<bool>(); mapped && !*mapped) {
      source.columns.erase(role);  // for example, `scopes = false` removes a preset's column
      continue;
    }
    const std::string quoted_role = "`" + std::string(role_name(role)) + "`";
    if (node->is_array()) {
      section.refuse(quoted_role +
                         " is one column. Where several make one, give the table another: GENERATED"
                         " ALWAYS AS (a || ':' || b) STORED; as `id` it has to be UNIQUE.",
                     node);
    }
    if (!node->is_string()) {
      section.refuse(quoted_role + " must be a string, the name of a column.", node);
    }
    const auto column = section.text(role_name(role));
    if (!is_sql_name(*column)) {
      section.refuse("`" + std::string(role_name(role)) + "` is no column name.", node);
    }
    source.columns[role] = *column;
  }
}

void check_columns(const Section& section, const SourceConfig& source) {
  for (const auto& [role, column] : source.columns) {
    if (role == Role::kKey || source.column(Role::kKey) == nullptr ||
        column != *source.column(Role::kKey)) {
      continue;
    }
    // Notifications carry ids, and every user of the database can read them; callers receive the
    // other columns. A key must not be disclosed in either way.
    section.refuse("`" + std::string(role_name(role)) + "` names the same column as `key`, \"" +
                       column + "\". It must be another column.",
                   section.find(role_name(role)));
  }
  for (const auto& [role, column] : source.columns) {
    if (role == Role::kLastUsedAt || source.column(Role::kLastUsedAt) == nullptr ||
        column != *source.column(Role::kLastUsedAt)) {
      continue;
    }
    section.refuse("`last_used_at` names the same column as `" + std::string(role_name(role)) +
                       "`, \"" + column +
                       "\". It is written to whenever a key is used, so it must be a column that"
                       " means nothing else.",
                   section.find(role_name(Role::kLastUsedAt)));
  }
  for (const Role role : {Role::kId, Role::kKey}) {
    if (source.column(role) != nullptr) continue;
    section.refuse("source \"" + source.name + "\" needs `" + role_name(role) +
                   "`: the column that " +
                   (role == Role::kId ? "identifies a row." : "holds the key or its digest."));
  }
}

void read_storage(const Section& section, SourceConfig& source) {
  read_choice<Scheme>(section, "scheme",
                      {{"plain", Scheme::kPlain},
                       {"sha256", Scheme::kSha256},
                       {"hmac-sha256", Scheme::kHmac},
                       {"jwt", Scheme::kJwt},
                       {"jwt-hs256", Scheme::kJwtJti}},
                      source.scheme);
  read_choice<Encoding>(
      section, "encoding",
      {{"raw", Encoding::kRaw}, {"hex", Encoding::kHex}, {"base64", Encoding::kBase64}},
      source.encoding);
}

void check_storage(const Section& section, bool has_preset, SourceConfig& source) {
  source.peppers = section.text("peppers").value_or("");
  if (source.scheme == Scheme::kHmac && source.peppers.empty()) {
    section.refuse("source \"" + source.name +
                   "\" stores HMACs, so `peppers` must name the folder that holds the secret of"
                   " each version.");
  }
  // A default of "plain" would make every stored hash a working key.
  if (!has_preset && section.find("scheme") == nullptr) {
    section.refuse(
        "`scheme` is missing: plain (the column holds the key itself), sha256, hmac-sha256,"
        " jwt or jwt-hs256.");
  }
  const bool digests = source.scheme == Scheme::kSha256 || source.scheme == Scheme::kHmac;
  if (!digests && section.find("encoding") != nullptr) {
    section.refuse("`encoding` says how a digest is written down, but scheme = \"" +
                       std::string(scheme_name(source.scheme)) + "\" stores " +
                       (source.scheme == Scheme::kJwtJti ? "a jti" : "the key itself") +
                       ". Set `scheme` to sha256 or hmac-sha256, or leave"
                       " `encoding` out.",
                   section.find("encoding"));
  }
  if (source.scheme != Scheme::kHmac && !source.peppers.empty()) {
    section.refuse("`peppers` is only for scheme = \"hmac-sha256\".", section.find("peppers"));
  }
}

// Reads one file name, or a list of file names while a secret is being replaced.
void read_jwt_secrets(const Section& section, bool has_preset, SourceConfig& source) {
  const toml::node* node = section.find("jwt_secret_file");
  if (node != nullptr && node->is_array()) {
    source.jwt_secret_files = *section.texts("jwt_secret_file");
    if (source.jwt_secret_files.empty()) {
      section.refuse("`jwt_secret_file` is an empty list. Name at least one file.", node);
    }
  } else if (node != nullptr) {
    if (!node->is_string()) {
      section.refuse("`jwt_secret_file` must be a string, or a list of strings.", node);
    }
    source.jwt_secret_files = {*section.text("jwt_secret_file")};
  }
  std::set<std::string> known;
  for (const std::string& file : source.jwt_secret_files) {
    if (file.empty()) section.refuse("`jwt_secret_file` holds an empty name.", node);
    if (!known.insert(file).second) {
      section.refuse("`jwt_secret_file` names \"" + file + "\" twice.", node);
    }
  }
  if (source.scheme != Scheme::kJwtJti) {
    if (node == nullptr) return;
    section.refuse("`jwt_secret_file` is only for scheme = \"jwt-hs256\": " +
                       (source.scheme == Scheme::kJwt
                            ? std::string("with \"jwt\" the table holds whole tokens, and the text"
                                          " decides.")
                            : "no other scheme checks signatures."),
                   node);
  }
  if (node == nullptr) {
    section.refuse("source \"" + source.name +
                   "\" keeps only the jti of its tokens, so `jwt_secret_file` must name the file"
                   " with the secret that they are signed with.");
  }
  // The key column of a preset holds no jti, so no token would ever match.
  if (has_preset && section.find("key") == nullptr) {
    section.refuse(
        "scheme = \"jwt-hs256\" looks tokens up by their jti, so `key` must name the"
        " column that holds it, such as key = \"jti\".",
        section.find("scheme"));
  }
}

}  // namespace

Settings source_settings() {
  Settings settings = {"preset",          "name",      "database",      "table",
                       "scheme",          "encoding",  "status_active", "status_revoked",
                       "status_disabled", "time_zone", "peppers",       "jwt_secret_file"};
  for (std::size_t i = 0; i < kRoles; ++i) settings.insert(role_name(static_cast<Role>(i)));
  return settings;
}

SourceConfig read_source(const Section& section) {
  const bool has_preset = section.find("preset") != nullptr;
  SourceConfig source = read_preset(section);
  source.name = needed_name(section, "api_keys");
  source.database = section.text("database").value_or("");
  read_table(section, source);
  read_storage(section, source);
  read_columns(section, source);
  check_columns(section, source);
  if (auto values = section.texts("status_active")) source.status_active = *values;
  if (auto values = section.texts("status_revoked")) source.status_revoked = *values;
  if (auto values = section.texts("status_disabled")) source.status_disabled = *values;
  if (const auto zone = section.text("time_zone")) source.time_zone = *zone;
  check_storage(section, has_preset, source);
  read_jwt_secrets(section, has_preset, source);
  return source;
}

}  // namespace latchkey
