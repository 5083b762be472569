// A source: which table holds keys, and which of its columns play which role.
//
// The three presets are values of this one mechanism. Everything here is pure: a mapping in, SQL
// text out. Names are quoted, never trusted; nothing here talks to a database.
#pragma once

#include <array>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace latchkey {

// How the table stores a key.
enum class Scheme {
  kPlain,   // the key itself
  kSha256,  // SHA-256 of it
  kHmac,    // HMAC-SHA-256 of it under a pepper
  kJwt,     // a JWT (RFC 7519), kept whole; its own exp and nbf count too
  kJwtJti,  // the jti of a JWT signed with HS256 under a secret that we have; likewise
};
// As the configuration names it, such as "hmac-sha256".
[[nodiscard]] const char* scheme_name(Scheme scheme);
// How a digest is written down in its column.
enum class Encoding { kRaw, kHex, kBase64 };

// What a column can be to us. `id` and `key` are needed, all others are optional.
enum class Role {
  kId,
  kKey,
  kKeyVersion,
  kSubject,
  kTenant,
  kScopes,
  kExpiresAt,
  kNotBefore,
  kRevokedAt,
  kDisabledAt,
  kDeletedAt,
  kEnabled,
  kStatus,
  kMetadata,
  kLastUsedAt,  // the only one that is written, and never read
};
constexpr std::size_t kRoles = 15;
// The role's name in the configuration, such as "expires_at".
[[nodiscard]] const char* role_name(Role role);

// schema.table; both parts as they stand in the catalogue.
struct TableName {
  std::string schema;
  std::string table;

  friend bool operator==(const TableName&, const TableName&) = default;
  // Reads `schema.table`; a part may stand in double quotes as in SQL. Nothing if it is not that.
  [[nodiscard]] static std::optional<TableName> parse(std::string_view text);
  [[nodiscard]] std::string display() const;  // for people, and as the tag in notifications
};

// Sources of one daemon.
constexpr std::size_t kSourcesMax = 32;

struct SourceConfig {
  std::string name;
  std::string database;
  TableName table;
  Scheme scheme = Scheme::kPlain;
  Encoding encoding = Encoding::kRaw;
  std::map<Role, std::string> columns;
  // Values of the status column. A value in none of the lists refuses the key.
  std::vector<std::string> status_active = {"active"};
  std::vector<std::string> status_revoked = {"revoked"};
  std::vector<std::string> status_disabled = {"disabled"};
  // What a time without a zone means.
  std::string time_zone = "UTC";
  std::string peppers;  // folder; only for kHmac
  // Files; only for kJwtJti, which needs one. Relative: in $CREDENTIALS_DIRECTORY.
  std::vector<std::string> jwt_secret_files;
  // Columns whose change is a change: those mapped here and by other sources on the same table,
  // which share its triggers. Empty: just those mapped here.
  std::vector<std::string> watched;
  // Likewise, of which no source on the table maps more than metadata. They are not in `watched`.
  std::vector<std::string> watched_metadata;
  // Of its [[database]]: the role that reads may be a superuser.
  bool allow_superuser = false;

  [[nodiscard]] const std::string* column(Role role) const {
    const auto found = columns.find(role);
    return found == columns.end() ? nullptr : &found->second;
  }
  friend bool operator==(const SourceConfig&, const SourceConfig&) = default;
};

// "external_credentials", "auth_api_key", "api_keys": everything but name and database. Nothing if
// there is no such preset.
[[nodiscard]] std::optional<SourceConfig> preset(std::string_view name);
[[nodiscard]] std::vector<std::string> preset_names();

}  // namespace latchkey
