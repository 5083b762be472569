#include "config/source.h"

#include <algorithm>

namespace latchkey {

const char* role_name(Role role) {
  switch (role) {
    case Role::kId: return "id";
    case Role::kKey: return "key";
    case Role::kKeyVersion: return "key_version";
    case Role::kSubject: return "subject";
    case Role::kTenant: return "tenant";
    case Role::kScopes: return "scopes";
    case Role::kExpiresAt: return "expires_at";
    case Role::kNotBefore: return "not_before";
    case Role::kRevokedAt: return "revoked_at";
    case Role::kDisabledAt: return "disabled_at";
    case Role::kDeletedAt: return "deleted_at";
    case Role::kEnabled: return "enabled";
    case Role::kStatus: return "status";
    case Role::kMetadata: return "metadata";
    case Role::kLastUsedAt: return "last_used_at";
  }
  return "";
}

const char* scheme_name(Scheme scheme) {
  switch (scheme) {
    case Scheme::kPlain: return "plain";
    case Scheme::kSha256: return "sha256";
    case Scheme::kHmac: return "hmac-sha256";
    case Scheme::kJwt: return "jwt";
    case Scheme::kJwtJti: return "jwt-hs256";
  }
  return "";
}

// ---- names

namespace {

// Removes one part of a dotted name from the front of `text` and returns it.
std::optional<std::string> take_name_part(std::string_view& text) {
  std::string part;
  if (!text.empty() && text.front() == '"') {
    for (std::size_t i = 1; i < text.size(); ++i) {
      if (text[i] != '"') {
        part += text[i];
      } else if (i + 1 < text.size() && text[i + 1] == '"') {
        part += text[i++];
      } else {
        text.remove_prefix(i + 1);
        return part;
      }
    }
    return std::nullopt;  // the quotation never ends
  }
  part = text.substr(0, text.find('.'));
  if (part.find('"') != std::string::npos) return std::nullopt;
  text.remove_prefix(part.size());
  return part;
}

}  // namespace

std::optional<TableName> TableName::parse(std::string_view text) {
  const auto schema = take_name_part(text);
  if (!schema || schema->empty() || text.empty() || text.front() != '.') return std::nullopt;
  text.remove_prefix(1);
  const auto table = take_name_part(text);
  if (!table || table->empty() || !text.empty()) return std::nullopt;
  return TableName{*schema, *table};
}

std::string TableName::display() const { return schema + "." + table; }

// ---- presets

namespace {

SourceConfig external_credentials() {
  SourceConfig source;
  source.table = {"public", "external_credentials"};
  source.scheme = Scheme::kPlain;
  source.columns = {{Role::kId, "id"},
                    {Role::kKey, "api_key"},
                    {Role::kSubject, "copper_id"},
                    {Role::kDeletedAt, "deleted_at"}};
  return source;
}

SourceConfig auth_api_key() {
  SourceConfig source;
  source.table = {"auth", "api_key"};
  source.scheme = Scheme::kJwt;
  source.columns = {{Role::kId, "id"},
                    {Role::kKey, "token"},
                    {Role::kSubject, "user_id"},
                    {Role::kExpiresAt, "expires_at"},
                    {Role::kRevokedAt, "revoked_at"}};
  return source;
}

SourceConfig api_keys() {
  SourceConfig source;
  source.table = {"public", "api_keys"};
  source.scheme = Scheme::kHmac;
  source.columns = {{Role::kId, "id"},
                    {Role::kKey, "token_hash"},
                    {Role::kKeyVersion, "token_hash_key_version"},
                    {Role::kSubject, "user_id"},
                    {Role::kTenant, "tenant_id"},
                    {Role::kScopes, "scopes"},
                    {Role::kExpiresAt, "expires_at"},
                    {Role::kStatus, "status"}};
  return source;
}

}  // namespace

std::optional<SourceConfig> preset(std::string_view name) {
  if (name == "external_credentials") return external_credentials();
  if (name == "auth_api_key") return auth_api_key();
  if (name == "api_keys") return api_keys();
  return std::nullopt;
}

std::vector<std::string> preset_names() {
  return {"external_credentials", "auth_api_key", "api_keys"};
}

}  // namespace latchkey
