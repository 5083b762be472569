#include "config/toml_section.h"

#include <algorithm>
#include <map>
#include <numeric>
#include <utility>

namespace latchkey {
namespace {

std::size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), std::size_t{0});
  for (std::size_t i = 1; i <= a.size(); ++i) {
    std::size_t diagonal = std::exchange(row[0], i);
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t change = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      diagonal = std::exchange(row[j], std::min({row[j] + 1, row[j - 1] + 1, change}));
    }
  }
  return row.back();
}

}  // namespace

std::string listed(const std::set<std::string>& names) {
  std::string text;
  for (const std::string& name : names) text += (text.empty() ? "" : ", ") + name;
  return text;
}

std::string did_you_mean(const std::string& name, const std::set<std::string>& known) {
  // Common names of columns and settings in other programs.
  static const std::map<std::string, std::string> usual = {
      {"active", "enabled"},
      {"is_active", "enabled"},
      {"is_enabled", "enabled"},
      {"hash", "key"},
      {"token", "key"},
      {"key_hash", "key"},
      {"token_hash", "key"},
      {"user", "subject"},
      {"user_id", "subject"},
      {"owner", "subject"},
      {"owner_id", "subject"},
      {"sub", "subject"},
      {"org", "tenant"},
      {"org_id", "tenant"},
      {"organization", "tenant"},
      {"tenant_id", "tenant"},
      {"team_id", "tenant"},
      {"permissions", "scopes"},
      {"abilities", "scopes"},
      {"roles", "scopes"},
      {"expiry", "expires_at"},
      {"expires", "expires_at"},
      {"expiration", "expires_at"},
      {"valid_until", "expires_at"},
      {"exp", "expires_at"},
      {"valid_from", "not_before"},
      {"nbf", "not_before"},
      {"revoked", "revoked_at"},
      {"is_revoked", "revoked_at"},
      {"disabled", "disabled_at"},
      {"deleted", "deleted_at"},
      {"is_deleted", "deleted_at"},
      {"last_used", "last_used_at"},
      {"algorithm", "scheme"},
      {"hash_algorithm", "scheme"},
      {"primary_key", "id"},
  };
  if (const auto found = usual.find(name); found != usual.end() && known.contains(found->second)) {
    return " Did you mean `" + found->second + "`?";
  }
  const auto nearest = std::ranges::min_element(
      known, {}, [&](const std::string& candidate) { return edit_distance(name, candidate); });
  if (nearest != known.end() &&
      edit_distance(name, *nearest) <= std::max<std::size_t>(2, name.size() / 3)) {
    return " Did you mean `" + *nearest + "`?";
  }
  return " Known here: " + listed(known) + ".";
}

}  // namespace latchkey
