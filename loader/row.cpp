#include "loader/row.h"

#include <endian.h>

#include <algorithm>
#include <bit>
#include <charconv>
#include <cstring>
#include <nlohmann/json.hpp>
#include <stdexcept>

#include "keymap/encoding.h"
#include "keymap/jwt.h"
#include "loader/mapping.h"

namespace latchkey {
namespace {

using nlohmann::json;

// 2000-01-01 00:00 UTC, PostgreSQL's epoch.
constexpr std::int64_t kPostgresEpochUs = 946'684'800'000'000;

void count(OddityCounts& counts, Oddity oddity) { ++counts[static_cast<std::size_t>(oddity)]; }

// Leaves `us` alone where there is no time; false if there is something else.
bool read_time(const std::optional<std::string_view>& field, std::int64_t& us) {
  if (!field) return true;
  if (field->size() != sizeof(std::int64_t)) return false;
  std::uint64_t bits = 0;
  for (const char c : *field) bits = (bits << 8) | static_cast<unsigned char>(c);
  us = unix_us_from_timestamptz(static_cast<std::int64_t>(bits));
  return true;
}

bool is_usable_scope(std::string_view scope) {
  return !scope.empty() && scope.size() <= LATCHKEY_SCOPE_BYTES_MAX &&
         std::ranges::all_of(
             scope, [](char c) { return static_cast<unsigned char>(c) > 0x20 && c != 0x7F; });
}

// A scope column's text as single scopes; nothing if it is no list.
std::optional<std::vector<std::string>> split_scopes(std::string_view text, bool is_json) {
  std::vector<std::string> names;
  if (is_json) {
    const json list = json::parse(text, nullptr, /*allow_exceptions=*/false);
    if (list.is_null()) return names;
    if (!list.is_array()) return std::nullopt;
    for (const json& item : list) {
      if (!item.is_string()) return std::nullopt;
      names.push_back(item.get<std::string>());
    }
    return names;
  }
  constexpr std::string_view kBetween = " ,\t\r\n";
  for (std::size_t from = 0; (from = text.find_first_not_of(kBetween, from)) != text.npos;) {
    const std::size_t to = std::min(text.find_first_of(kBetween, from), text.size());
    names.emplace_back(text.substr(from, to - from));
    from = to;
  }
  return names;
}

}  // namespace

Lint lint_of(Oddity oddity) {
  switch (oddity) {
    case Oddity::kNoKey: return Lint::kNoKey;
    case Oddity::kBadDigest: return Lint::kBadDigest;
    case Oddity::kUnknownPepper: return Lint::kUnknownPepper;
    case Oddity::kUnknownStatus: return Lint::kUnknownStatus;
    case Oddity::kBadScopes: return Lint::kBadScopes;
    case Oddity::kUnusableScope: return Lint::kUnusableScope;
    case Oddity::kUnreadableTime: return Lint::kUnreadableTime;
    case Oddity::kUnreadableJwt: return Lint::kUnreadableJwt;
    case Oddity::kClaimsTooLong: return Lint::kClaimsTooLong;
    case Oddity::kMetadataTooLong: return Lint::kMetadataTooLong;
  }
  return Lint::kBadDigest;
}

namespace {

const char* name_of(RowField field) {
  switch (field) {
    case kFieldId: return "id";
    case kFieldKey: return "key";
    case kFieldKeyVersion: return "key_version";
    case kFieldState: return "state";
    case kFieldExpires: return "expires_at";
    case kFieldNotBefore: return "not_before";
    case kFieldSubject: return "subject";
    case kFieldTenant: return "tenant";
    case kFieldScopes: return "scopes";
    case kFieldMetadata: return "metadata";
    case kFieldJwtClaims: return "jwt claims";
    case kFieldShort: return "short";
    case kRowFields: break;
  }
  return "a field";
}

// Whoever sends this sends no rows: the connection is of no more use.
[[noreturn]] void broken(RowField field, const char* how) {
  throw std::runtime_error("a row's `" + std::string(name_of(field)) + "` is " + how);
}

template <typename T>
std::int64_t integer_of(RowField field, std::string_view bytes) {
  if (bytes.size() != sizeof(T)) broken(field, "an integer of an impossible length");
  std::make_unsigned_t<T> value = 0;
  std::memcpy(&value, bytes.data(), sizeof value);
  if constexpr (sizeof(T) == 8) return static_cast<T>(be64toh(value));
  if constexpr (sizeof(T) == 4) return static_cast<T>(be32toh(value));
  return static_cast<T>(be16toh(static_cast<std::uint16_t>(value)));
}

std::string_view spell(std::int64_t value, std::array<char, 24>& text) {
  const char* end = std::to_chars(text.data(), text.data() + text.size(), value).ptr;
  return {text.data(), static_cast<std::size_t>(end - text.data())};
}

// jsonb_send(): a version, then the text.
std::string_view text_of_jsonb(RowField field, std::string_view bytes) {
  if (!bytes.starts_with('\1')) broken(field, "jsonb of an unknown version");
  return bytes.substr(1);
}

}  // namespace

void RowDecoder::decode(WireRow row, Texts& texts, RowView& view) const {
  view.fill(std::nullopt);
  if (row.size() != fields_.size()) {
    throw std::runtime_error("a row has " + std::to_string(row.size()) + " fields instead of " +
                             std::to_string(fields_.size()));
  }
  std::size_t integers = 0;
  for (std::size_t i = 0; i < fields_.size(); ++i) {
    if (!row[i]) continue;
    const auto [field, type] = fields_[i];
    std::optional<std::string_view>& value = view[field];
    switch (type) {
      case kInt8:
        value = spell(integer_of<std::int64_t>(field, *row[i]), texts.at(integers++));
        break;
      case kInt4:
        value = spell(integer_of<std::int32_t>(field, *row[i]), texts.at(integers++));
        break;
      case kInt2:
        value = spell(integer_of<std::int16_t>(field, *row[i]), texts.at(integers++));
        break;
      case kJsonb: value = text_of_jsonb(field, *row[i]); break;
      case kTimestamptz:
        if (row[i]->size() != sizeof(std::int64_t)) broken(field, "a time of an impossible length");
        value = row[i];
        break;
      default: value = row[i];
    }
  }
}

const char* oddity_name(Oddity oddity) { return rule_of(lint_of(oddity)).name; }

const char* oddity_sentence(Oddity oddity) {
  switch (oddity) {
    case Oddity::kNoKey: return "the key column is NULL; nobody can present such a key";
    case Oddity::kBadDigest:
      return "the stored digest is not 32 bytes in the configured encoding, so no key can match it;"
             " if it is most rows, `encoding` or `scheme` is wrong, else issue these keys anew";
    case Oddity::kUnknownPepper:
      return "the pepper version of the row is not in the `peppers` folder, so no key can match it;"
             " put the file back or issue these keys anew";
    case Oddity::kUnknownStatus:
      return "the status is in none of status_active, status_revoked, status_disabled; the key is"
             " refused as disabled";
    case Oddity::kBadScopes:
      return "the scopes are no list of words; the key is refused as disabled";
    case Oddity::kUnusableScope:
      return "a scope is empty, holds a space or is longer than 255 bytes; it is left out";
    case Oddity::kUnreadableTime:
      return "expires_at or not_before is no time; the key is refused as disabled";
    case Oddity::kUnreadableJwt:
      return "the stored token's claims cannot be read, so neither can its expiry; the key is"
             " refused as disabled";
    case Oddity::kClaimsTooLong:
      return "id, subject, tenant and scopes exceed 4096 bytes; the key is refused as disabled";
    case Oddity::kMetadataTooLong: return "the metadata exceed 4096 bytes; answers leave them out";
  }
  return "";
}

RowReader::RowReader(const SourceConfig& source, const TableFacts& facts, ScopeSets& scopes,
                     std::unordered_set<std::string> pepper_versions)
    : source_(source),
      scopes_(scopes),
      pepper_versions_(std::move(pepper_versions)),
      scopes_are_json_(latchkey::scopes_are_json(source, facts)) {}

std::optional<RecordFacts> RowReader::read(const RowView& row, OddityCounts& counts) {
  if (!row[kFieldKey] || !row[kFieldId]) {
    count(counts, Oddity::kNoKey);
    return std::nullopt;
  }
  const std::optional<Digest> digest = read_digest(*row[kFieldKey]);
  if (!digest) {
    count(counts, Oddity::kBadDigest);
    return std::nullopt;
  }
  if (source_.scheme == Scheme::kHmac && source_.column(Role::kKeyVersion) != nullptr &&
      !pepper_versions_.contains(std::string(row[kFieldKeyVersion].value_or("")))) {
    count(counts, Oddity::kUnknownPepper);  // kept all the same: the file may come back
  }

  RecordFacts facts;
  facts.digest = *digest;
  facts.state = read_state(row, counts);
  facts.key_id = *row[kFieldId];
  facts.subject = row[kFieldSubject];
  facts.tenant = row[kFieldTenant];
  facts.metadata = row[kFieldMetadata];
  if (!read_time(row[kFieldExpires], facts.expires_us) ||
      !read_time(row[kFieldNotBefore], facts.not_before_us)) {
    count(counts, Oddity::kUnreadableTime);
    if (facts.state == RowState::kActive) facts.state = RowState::kDisabled;
  }
  if (source_.scheme == Scheme::kJwt) {
    const auto text = decode_base64(row[kFieldJwtClaims].value_or(""));
    const auto claims = text ? read_jwt_claims(*text) : std::nullopt;
    if (!claims) {
      count(counts, Oddity::kUnreadableJwt);
      if (facts.state == RowState::kActive) facts.state = RowState::kDisabled;
    } else {
      // The row and the token may disagree; the stricter one counts.
      facts.expires_us = std::min(facts.expires_us, claims->times.expires_us);
      facts.not_before_us = std::max(facts.not_before_us, claims->times.not_before_us);
    }
  }
  if (source_.column(Role::kScopes) != nullptr) {
    facts.scopes = read_scopes(row[kFieldScopes].value_or(""), facts, counts);
  }
  if (facts.metadata && !facts.metadata_fits(source_.name.size())) {
    count(counts, Oddity::kMetadataTooLong);
    facts.metadata.reset();
  }
  if (!facts.claims_fit(source_.name.size())) {
    count(counts, Oddity::kClaimsTooLong);
    // Without an identity it may be refused, never accepted.
    if (facts.state == RowState::kActive) facts.state = RowState::kDisabled;
    facts.subject.reset();
    facts.tenant.reset();
    facts.scopes = nullptr;
    if (!facts.claims_fit(source_.name.size())) return std::nullopt;
  }
  return facts;
}

std::optional<Digest> RowReader::read_digest(std::string_view field) const {
  const bool text_encoded = source_.encoding != Encoding::kRaw &&
                            (source_.scheme == Scheme::kSha256 || source_.scheme == Scheme::kHmac);
  std::string decoded;
  if (text_encoded) {
    auto bytes = source_.encoding == Encoding::kHex ? decode_hex(field) : decode_base64(field);
    if (!bytes) return std::nullopt;
    decoded = std::move(*bytes);
    field = decoded;
  }
  Digest digest;
  if (field.size() != digest.bytes.size()) return std::nullopt;
  std::memcpy(digest.bytes.data(), field.data(), field.size());
  return digest;
}

RowState RowReader::read_state(const RowView& row, OddityCounts& counts) const {
  const std::string_view state = row[kFieldState].value_or("u");
  if (state == "a") return RowState::kActive;
  if (state == "r") return RowState::kRevoked;
  if (state == "d") return RowState::kDisabled;
  if (state == "x") return RowState::kDeleted;
  count(counts, Oddity::kUnknownStatus);
  return RowState::kDisabled;
}

const ScopeSet* RowReader::read_scopes(std::string_view text, RecordFacts& facts,
                                       OddityCounts& counts) {
  if (text.size() > static_cast<std::size_t>(kScopesBytesMax)) {  // and so cut by the server
    count(counts, Oddity::kClaimsTooLong);
    if (facts.state == RowState::kActive) facts.state = RowState::kDisabled;
    return nullptr;
  }
  if (const ScopeSet* known = scopes_.find(text)) return known;
  auto names = split_scopes(text.empty() && scopes_are_json_ ? "[]" : text, scopes_are_json_);
  if (!names) {
    count(counts, Oddity::kBadScopes);
    if (facts.state == RowState::kActive) facts.state = RowState::kDisabled;
    return nullptr;
  }
  const auto unusable =
      std::erase_if(*names, [](const std::string& name) { return !is_usable_scope(name); });
  if (unusable > 0) {
    count(counts, Oddity::kUnusableScope);
    // Not under this spelling, so that the next row that spells it so is counted as well, but under
    // one that no row can have.
    std::string good = "\x01";
    for (const std::string& name : *names) good += name + " ";
    return scopes_.intern(good, *names);
  }
  return scopes_.intern(text, *names);
}

// ---- times

std::int64_t unix_us_from_timestamptz(std::int64_t postgres_us) {
  if (postgres_us == std::numeric_limits<std::int64_t>::max()) return kNeverExpires;
  if (postgres_us == std::numeric_limits<std::int64_t>::min()) return kAlwaysValid;
  // Times near the far end of int64 lie beyond any date that PostgreSQL accepts (294276 AD).
  if (postgres_us > std::numeric_limits<std::int64_t>::max() - kPostgresEpochUs) {
    return kNeverExpires;
  }
  return postgres_us + kPostgresEpochUs;
}

}  // namespace latchkey
