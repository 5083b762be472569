// A source: a table that holds keys, and the roles of its columns.
//
// The three presets are values of this type. Nothing here connects to a database or builds SQL; the
// loader quotes the names.
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
  kJwtJti,  // the jti of a JWT signed with HS256 under a known secret; its exp and nbf count too
};
// As the configuration names it, such as "hmac-sha256".
[[nodiscard]] const char* scheme_name(Scheme scheme);
// The encoding of a digest in its column.
enum class Encoding { kRaw, kHex, kBase64 };

// The role of a column. `id` and `key` are required, all others are optional.
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
  kLastUsedAt,  // the only role that is written; it is never read
};
constexpr std::size_t kRoles = 15;
// The role's name in the configuration, such as "expires_at".
[[nodiscard]] const char* role_name(Role role);

// schema.table; both parts as in the catalogue.
struct TableName {
  std::string schema;
  std::string table;

  friend bool operator==(const TableName&, const TableName&) = default;
  // Parses `schema.table`; a part may be in double quotes as in SQL. nullopt for any other text.
  [[nodiscard]] static std::optional<TableName> parse(std::string_view text);
  [[nodiscard]] std::string display() const;  // for people, and as the tag in notifications
};

// The maximum number of sources of one daemon.
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
  // The zone of times without a time zone.
  std::string time_zone = "UTC";
  std::string peppers;  // folder; only for kHmac
  // Files; only for kJwtJti, which needs at least one. Relative names are in
  // $CREDENTIALS_DIRECTORY.
  std::vector<std::string> jwt_secret_files;
  // Columns that the triggers watch: those mapped here and by other sources on the same table,
  // because these sources share its triggers. Empty: only those mapped here.
  std::vector<std::string> watched;
  // Watched columns that the sources on the table map as metadata only. They are not in `watched`.
  std::vector<std::string> watched_metadata;
  // From its [[database]]: the reading role may be a superuser.
  bool allow_superuser = false;

  [[nodiscard]] const std::string* column(Role role) const {
    const auto found = columns.find(role);
    return found == columns.end() ? nullptr : &found->second;
  }
  friend bool operator==(const SourceConfig&, const SourceConfig&) = default;
};

// The preset "external_credentials", "auth_api_key" or "api_keys": all settings except name and
// database. nullopt if no preset has that name.
[[nodiscard]] std::optional<SourceConfig> preset(std::string_view name);
[[nodiscard]] std::vector<std::string> preset_names();

}  // namespace latchkey
