#include "loader/postgres/row.h"

#include <endian.h>

#include <algorithm>
#include <bit>
#include <charconv>
#include <cstring>
#include <nlohmann/json.hpp>
#include <stdexcept>

#include "base/encoding.h"
#include "keys/jwt.h"
#include "loader/postgres/mapping.h"

namespace latchkey {
namespace {

using nlohmann::json;

// 2000-01-01 00:00 UTC, PostgreSQL's epoch.
constexpr std::int64_t kPostgresEpochUs = 946'684'800'000'000;

// Leaves `us` unchanged if the field is null; returns false if it holds no time.
bool read_time(const std::optional<std::string_view>& field, std::int64_t& us) {
  if (!field) return true;
  if (field->size() != sizeof(std::int64_t)) return false;
  std::uint64_t bits = 0;
  for (const char c : *field) bits = (bits << 8) | static_cast<unsigned char>(c);
  const auto postgres_us = static_cast<std::int64_t>(bits);
  if (postgres_us == kNoTimePostgresUs) return false;
  us = unix_us_from_timestamptz(postgres_us);
  return true;
}

std::string hex_of(const Digest& digest) {
  std::string text;
  for (const std::uint8_t byte : digest.bytes) {
    constexpr std::string_view kDigits = "0123456789abcdef";
    text += kDigits[byte >> 4];
    text += kDigits[byte & 15];
  }
  return text;
}

bool is_usable_scope(std::string_view scope) {
  return !scope.empty() && scope.size() <= LATCHKEY_SCOPE_BYTES_MAX &&
         std::ranges::all_of(
             scope, [](char c) { return static_cast<unsigned char>(c) > 0x20 && c != 0x7F; });
}

constexpr std::string_view kBetweenScopes = " ,\t\r\n";

// Splitting JSON into words would yield scopes that it does not hold: "may not use admin" grants no
// "admin". Invisible characters may precede JSON: a byte order mark, other white space.
bool looks_like_json(std::string_view text) {
  const auto first =
      std::ranges::find_if(text, [](char c) { return c > ' ' && c <= '~' && c != ','; });
  return first != text.end() && std::string_view("[{\"").find(*first) != std::string_view::npos;
}

// True for one word of a list; false for a piece of another notation (JSON that begins with another
// character, an array of PostgreSQL's, XML, YAML, quoted text), whose words would be other scopes.
bool looks_like_word(std::string_view word) {
  constexpr std::string_view kOfOtherNotations = "\"'`\\[]{}()<>";
  return word.find_first_of(kOfOtherNotations) == word.npos && word != "-";
}

// Splits the text of a scope column into scopes; nullopt if it is no list.
std::optional<std::vector<std::string>> split_scopes(std::string_view text, bool is_json) {
  std::vector<std::string> names;
  if (is_json || looks_like_json(text)) {
    const json list = json::parse(text, nullptr, /*allow_exceptions=*/false);
    if (list.is_null()) return names;
    if (!list.is_array()) return std::nullopt;
    for (const json& item : list) {
      if (!item.is_string()) return std::nullopt;
      names.push_back(item.get<std::string>());
    }
    return names;
  }
  for (std::size_t from = 0; (from = text.find_first_not_of(kBetweenScopes, from)) != text.npos;) {
    const std::size_t to = std::min(text.find_first_of(kBetweenScopes, from), text.size());
    names.emplace_back(text.substr(from, to - from));
    if (!looks_like_word(names.back())) return std::nullopt;
    from = to;
  }
  return names;
}

}  // namespace

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
    case kFieldUseTimeUnit: return "last_used_at";
    case kFieldUnreadable: return "unreadable";
    case kRowFields: break;
  }
  return "a field";
}

// The peer does not send valid rows: the connection is unusable.
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

void RowDecoder::convert(RowField field, std::string_view stored, Texts& texts, RowView& view) {
  if (is_ascii(stored)) {
    view[field] = stored;
    return;
  }
  auto text = converter_.to_utf8(stored);
  if (!text) {
    view[kFieldUnreadable] = "x";
    if (field == kFieldKey) view[field] = "";  // the row has a key
    if (field != kFieldId) return;
    text = converter_.id(stored);
  }
  view[field] = texts.converted.emplace_back(*std::move(text));
}

void RowDecoder::decode(WireRow row, Texts& texts, RowView& view) {
  texts.converted.clear();
  texts.converted.reserve(fields_.size());  // the view refers to it
  view.fill(std::nullopt);
  if (row.size() != fields_.size()) {
    throw std::runtime_error("a row has " + std::to_string(row.size()) + " fields instead of " +
                             std::to_string(fields_.size()));
  }
  std::size_t integers = 0;
  for (std::size_t i = 0; i < fields_.size(); ++i) {
    if (!row[i]) continue;
    const auto [field, type, as_stored] = fields_[i];
    if (as_stored) {
      convert(field, *row[i], texts, view);
      continue;
    }
    std::optional<std::string_view>& value = view[field];
    switch (type) {
      case kInt8:
        value = spell(integer_of<std::int64_t>(field, *row[i]), texts.integers.at(integers++));
        break;
      case kInt4:
        value = spell(integer_of<std::int32_t>(field, *row[i]), texts.integers.at(integers++));
        break;
      case kInt2:
        value = spell(integer_of<std::int16_t>(field, *row[i]), texts.integers.at(integers++));
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

RowReader::RowReader(const SourceConfig& source, const TableFacts& facts, ScopeSets& scopes,
                     std::unordered_set<std::string> pepper_versions)
    : source_(source),
      scopes_(scopes),
      pepper_versions_(std::move(pepper_versions)),
      scopes_are_json_(latchkey::scopes_are_json(source, facts)) {
  // An earlier reader of these may have read a column of another type.
  scopes_.forget_texts();
}

RowMeaning RowReader::read(const RowView& row) {
  RowMeaning meaning;
  meaning.short_key = row[kFieldShort].has_value();
  meaning.pepper_version = row[kFieldKeyVersion];
  if (row[kFieldUseTimeUnit]) meaning.odd.add(Oddity::kUseTimeUnit);
  read_facts(row, meaning);
  return meaning;
}

void RowReader::read_facts(const RowView& row, RowMeaning& meaning) {
  Oddities& odd = meaning.odd;
  if (!row[kFieldKey] || !row[kFieldId]) {
    odd.add(Oddity::kNoKey);
    return;
  }
  const bool hashed = source_.scheme == Scheme::kSha256 || source_.scheme == Scheme::kHmac;
  const bool key_is_text = hashed && source_.encoding != Encoding::kRaw;
  if (row[kFieldUnreadable] || (!hashed && *row[kFieldKey] == kKeyNotAscii)) {
    odd.add(Oddity::kUnreadableText);
    const std::optional<Digest> refused = read_digest(*row[kFieldKey]);
    if (refused) meaning.facts = refusal(*refused, row);  // otherwise the key is unreadable
    return;
  }
  if (key_is_text && row[kFieldKey]->empty()) {
    odd.add(Oddity::kNoKey);
    return;
  }
  const std::optional<Digest> digest = read_digest(*row[kFieldKey]);
  if (!digest) {
    odd.add(Oddity::kBadDigest);
    return;
  }
  if (source_.scheme == Scheme::kHmac && source_.column(Role::kKeyVersion) != nullptr &&
      !pepper_versions_.contains(std::string(row[kFieldKeyVersion].value_or("")))) {
    odd.add(Oddity::kUnknownPepper);  // the row is kept: the file may come back
  }

  RecordFacts& facts = meaning.facts.emplace();
  facts.digest = *digest;
  facts.state = read_state(row, odd);
  facts.key_id = *row[kFieldId];
  facts.subject = row[kFieldSubject];
  facts.tenant = row[kFieldTenant];
  facts.metadata = row[kFieldMetadata];
  if (!read_time(row[kFieldExpires], facts.expires_us) ||
      !read_time(row[kFieldNotBefore], facts.not_before_us)) {
    odd.add(Oddity::kUnreadableTime);
    if (facts.state == RowState::kActive) facts.state = RowState::kDisabled;
  }
  if (source_.scheme == Scheme::kJwt) read_token_times(row, facts, odd);
  if (source_.column(Role::kScopes) != nullptr) {
    facts.scopes = read_scopes(row[kFieldScopes].value_or(""), facts, odd);
  }
  fit_claims(row, meaning);
}

// The row and the token may disagree; the stricter time counts.
void RowReader::read_token_times(const RowView& row, RecordFacts& facts, Oddities& odd) {
  const auto text = decode_base64(row[kFieldJwtClaims].value_or(""));
  const auto claims = text ? read_jwt_claims(*text) : std::nullopt;
  if (!claims) {
    odd.add(Oddity::kUnreadableJwt);
    if (facts.state == RowState::kActive) facts.state = RowState::kDisabled;
  } else {
    facts.expires_us = std::min(facts.expires_us, claims->times.expires_us);
    facts.not_before_us = std::max(facts.not_before_us, claims->times.not_before_us);
  }
}

// Reduces a record whose claims do not fit an answer.
void RowReader::fit_claims(const RowView& row, RowMeaning& meaning) {
  Oddities& odd = meaning.odd;
  RecordFacts& facts = *meaning.facts;
  const Digest digest = facts.digest;
  if (facts.metadata && !facts.metadata_fits(source_.name.size())) {
    odd.add(Oddity::kMetadataTooLong);
    facts.metadata.reset();
  }
  if (!facts.claims_fit(source_.name.size())) {
    odd.add(Oddity::kClaimsTooLong);
    // Without an identity the key may be refused, never accepted.
    if (facts.state == RowState::kActive) facts.state = RowState::kDisabled;
    facts.subject.reset();
    facts.tenant.reset();
    facts.scopes = nullptr;
    if (!facts.claims_fit(source_.name.size())) meaning.facts = refusal(digest, row);
  }
}

// A record that only refuses its key. Leaving the row out would be wrong: another row with the same
// key would make the key valid.
RecordFacts RowReader::refusal(const Digest& digest, const RowView& row) {
  RecordFacts facts;
  facts.digest = digest;
  Oddities ignored;
  facts.state = read_state(row, ignored);
  if (facts.state == RowState::kActive) facts.state = RowState::kDisabled;
  facts.key_id = *row[kFieldId];
  if (facts.claims_fit(source_.name.size())) return facts;
  // No notification can name this row, only a reload finds it. One of several rows with the key is
  // enough.
  made_up_id_ = "(id too long) " + hex_of(digest);
  facts.key_id = made_up_id_;
  facts.id_is_made_up = true;
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

RowState RowReader::read_state(const RowView& row, Oddities& odd) const {
  const std::string_view state = row[kFieldState].value_or("u");
  if (state == "a") return RowState::kActive;
  if (state == "r") return RowState::kRevoked;
  if (state == "d") return RowState::kDisabled;
  if (state == "x") return RowState::kDeleted;
  odd.add(Oddity::kUnknownStatus);
  return RowState::kDisabled;
}

const ScopeSet* RowReader::read_scopes(std::string_view text, RecordFacts& facts, Oddities& odd) {
  if (text.size() > static_cast<std::size_t>(kScopesBytesMax)) {  // the server has cut it
    odd.add(Oddity::kClaimsTooLong);
    if (facts.state == RowState::kActive) facts.state = RowState::kDisabled;
    return nullptr;
  }
  if (const ScopeSet* known = scopes_.find(text)) return known;
  auto names = split_scopes(text.empty() && scopes_are_json_ ? "[]" : text, scopes_are_json_);
  if (!names) {
    odd.add(Oddity::kBadScopes);
    if (facts.state == RowState::kActive) facts.state = RowState::kDisabled;
    return nullptr;
  }
  const auto unusable =
      std::erase_if(*names, [](const std::string& name) { return !is_usable_scope(name); });
  const ScopeSet* set = scopes_.intern(*names);
  if (unusable > 0) {
    odd.add(Oddity::kUnusableScope);  // not remembered: the next row with this text is counted, too
  } else {
    scopes_.remember(text, set);
  }
  return set;
}

// ---- times

std::int64_t unix_us_from_timestamptz(std::int64_t postgres_us) {
  if (postgres_us == std::numeric_limits<std::int64_t>::max()) return kNeverExpires;
  if (postgres_us == std::numeric_limits<std::int64_t>::min()) return kAlwaysValid;
  // Times near the end of int64 are beyond any date that PostgreSQL accepts (294276 AD).
  if (postgres_us > std::numeric_limits<std::int64_t>::max() - kPostgresEpochUs) {
    return kNeverExpires;
  }
  return postgres_us + kPostgresEpochUs;
}

}  // namespace latchkey
