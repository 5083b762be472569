#include "verify/explain.h"

#include <algorithm>
#include <array>
#include <limits>
#include <nlohmann/json.hpp>
#include <span>
#include <vector>

#include "base/wire_names.h"
#include "keys/key_form.h"
#include "verify/source_state.h"

namespace latchkey {
namespace {

using nlohmann::ordered_json;

constexpr std::int64_t kNever = std::numeric_limits<std::int64_t>::max();

double seconds(std::int64_t us) { return static_cast<double>(us) / 1e6; }

// ---- the key's shape

bool is_space(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

// True for three parts of base64url (RFC 7515 section 3.1). The parts are not decoded.
bool is_jwt(std::string_view key) {
  constexpr std::string_view kBase64Url =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
  int parts = 0;
  for (std::size_t at = 0; at <= key.size(); ++parts) {
    const std::size_t dot = std::min(key.find('.', at), key.size());
    const std::string_view part = key.substr(at, dot - at);
    if (part.empty() || part.find_first_not_of(kBase64Url) != std::string_view::npos) return false;
    at = dot + 1;
  }
  return parts == 3;
}

ordered_json shape_of(std::string_view key) {
  const bool minted = has_minted_form(key);
  ordered_json shape = {{"bytes", key.size()},
                        {"form", minted        ? "minted"
                                 : is_jwt(key) ? "jwt"
                                               : "other"}};
  if (minted) shape["checksum"] = is_minted_key(key) ? "right" : "wrong";
  ordered_json odd = ordered_json::array();
  if (!key.empty() && is_space(key.front())) odd.push_back("leading_space");
  if (!key.empty() && is_space(key.back())) odd.push_back("trailing_space");
  const auto holds = [key](auto is) { return std::ranges::any_of(key, is); };
  if (holds(is_space)) odd.push_back("white_space");
  if (holds([](char c) {
        return (static_cast<unsigned char>(c) < 0x20 && !is_space(c)) || c == 0x7F;
      })) {
    odd.push_back("control_character");
  }
  if (holds([](char c) { return static_cast<unsigned char>(c) >= 0x80; }))
    odd.push_back("non_ascii");
  if (!odd.empty()) shape["odd"] = odd;
  return shape;
}

// Removes text that is often copied with a key: a header's "Bearer", quotation marks, white space.
std::string_view stripped(std::string_view key) {
  const auto trim = [&key] {
    while (!key.empty() && is_space(key.front())) key.remove_prefix(1);
    while (!key.empty() && is_space(key.back())) key.remove_suffix(1);
  };
  trim();
  for (const std::string_view word : {"Authorization:", "Bearer "}) {
    if (key.starts_with(word)) key.remove_prefix(word.size());
    trim();
  }
  for (const char mark : {'"', '\''}) {
    if (key.size() > 2 && key.front() == mark && key.back() == mark) {
      key = key.substr(1, key.size() - 2);
    }
  }
  trim();
  return key;
}

// Removes characters that editors, chats and web pages insert invisibly: the byte order mark,
// zero-width spaces and joiners, the word joiner, soft hyphens, no-break spaces.
std::string without_invisible(std::string_view key) {
  constexpr std::array<std::string_view, 7> kInvisible = {
      "\xEF\xBB\xBF", "\xE2\x80\x8B", "\xE2\x80\x8C", "\xE2\x80\x8D",
      "\xE2\x81\xA0", "\xC2\xAD",     "\xC2\xA0"};
  std::string text;
  while (!key.empty()) {
    const auto found = std::ranges::find_if(
        kInvisible, [key](std::string_view unseen) { return key.starts_with(unseen); });
    const std::size_t length = found == kInvisible.end() ? 1 : found->size();
    if (found == kInvisible.end()) text += key.front();
    key.remove_prefix(length);
  }
  return text;
}

// The rest of the key after a prefix such as "17|" (an id) or "cal_", "sk_live_" (words): many
// applications store only that rest.
std::vector<std::string_view> behind_prefixes(std::string_view key) {
  constexpr std::size_t kPrefixMax = 24, kWordsMax = 3;
  std::vector<std::string_view> rests;
  const std::size_t bar = key.find_first_not_of("0123456789");
  if (bar != key.npos && bar > 0 && key[bar] == '|') rests.push_back(key.substr(bar + 1));
  for (std::size_t at = key.find('_'); at < kPrefixMax && rests.size() < kWordsMax;
       at = key.find('_', at + 1)) {
    rests.push_back(key.substr(at + 1));
  }
  std::erase(rests, "");
  return rests;
}

const char* malformed_because(std::string_view key) {
  if (key.empty()) return "empty";
  return key.size() > LATCHKEY_KEY_BYTES_MAX ? "too_long" : "zero_byte";
}

// ---- one explanation

class Explanation {
 public:
  Explanation(const Verifier& verifier, const Question& question, const Now& now)
      : verifier_(verifier), question_(question), terms_(*question.terms), now_(now) {
    // Ages are read before any look-up, as in Verifier (see FreshnessStamp::age_ns).
    for (const Route& route : verifier.routes()) {
      ages_ns_.push_back(route.keys->freshness.age_ns(now.boot_ns));
    }
    outcome_ = verifier.verify(question, now, seen_);
    // If two pepper files hold the same secret, both digests lead to the same row.
    for (const Sighting& row : seen_) {
      const auto same = [&row](const Sighting& other) { return other.record == row.record; };
      if (std::ranges::none_of(rows_, same)) rows_.push_back(row);
    }
    std::ranges::stable_partition(rows_, [this](const Sighting& row) { return speaks(row); });
  }

  [[nodiscard]] ordered_json json() const {
    ordered_json json = {{"active", outcome_.verdict == LATCHKEY_VALID},
                         {"verdict", verdict_name(outcome_.verdict)}};
    if (outcome_.record != nullptr) {
      json["source"] = name_of(outcome_.route);
      json["key_id"] = outcome_.record->key_id();
    }
    json["fresh"] = outcome_.fresh;
    if (outcome_.age_ms != LATCHKEY_AGE_UNKNOWN) json["age_ms"] = outcome_.age_ms;
    if (outcome_.verdict == LATCHKEY_MALFORMED) {
      json["malformed"] = malformed_because(question_.key);
    }
    if (outcome_.record != nullptr) json["speaks_because"] = speaks_because();
    json["key"] = shape_of(question_.key);
    add_stripped(json);
    json["sources"] = sources();
    json["rows"] = rows();
    if (const std::size_t left = rows_.size() - told(rows_).size()) json["rows_left_out"] = left;
    return json;
  }

 private:
  [[nodiscard]] const std::string& name_of(std::size_t route) const {
    return verifier_.routes()[route].keys->name;
  }
  [[nodiscard]] bool asked(std::size_t route) const {
    return (terms_.sources & (SourceMask{1} << route)) != 0;
  }
  [[nodiscard]] bool speaks(const Sighting& row) const { return row.record == outcome_.record; }

  // ---- the row that decides

  [[nodiscard]] const char* speaks_because() const {
    if (rows_.size() == 1) return "only_row";
    if (is_ambiguous()) return "ambiguous";
    const auto good = [](const Sighting& row) { return row.verdict == LATCHKEY_VALID; };
    if (good(rows_.front())) return "first";
    return std::ranges::any_of(rows_, good) ? "refuses" : "first";
  }

  // True if the deciding row is active and the key is refused all the same, because another row of
  // that source is active, too.
  [[nodiscard]] bool is_ambiguous() const {
    const Record& speaker = *rows_.front().record;
    return outcome_.verdict == LATCHKEY_DISABLED &&
           (is_active(rows_.front()) || speaker.stands_for().has_value());
  }
  static bool is_active(const Sighting& row) { return row.record->state() == RowState::kActive; }

  // For an unknown or malformed key, looks it up again without text that may have been copied with
  // it, and without a prefix that the application may not store.
  void add_stripped(ordered_json& json) const {
    if (outcome_.verdict != LATCHKEY_UNKNOWN && outcome_.verdict != LATCHKEY_MALFORMED) return;
    const std::string visible = without_invisible(question_.key);
    const std::string_view bare = stripped(visible);
    if (!bare.empty() && bare.size() != question_.key.size()) {
      json["stripped_verdict"] = verdict_name(verdict_of(bare));
    }
    for (const std::string_view rest : behind_prefixes(bare)) {
      std::vector<Sighting> seen;
      const latchkey_verdict verdict =
          verifier_.verify({rest, question_.terms}, now_, seen).verdict;
      // A part of the key is shown only where a row is known for the rest of it.
      if (seen.empty() || verdict == LATCHKEY_UNKNOWN) continue;
      json["stripped_verdict"] = verdict_name(verdict);
      json["stripped_prefix"] = bare.substr(0, bare.size() - rest.size());
      return;
    }
  }
  [[nodiscard]] latchkey_verdict verdict_of(std::string_view key) const {
    std::vector<Sighting> seen;
    return verifier_.verify({key, question_.terms}, now_, seen).verdict;
  }

  // ---- the sources that were searched

  [[nodiscard]] ordered_json sources() const {
    ordered_json list = ordered_json::array();
    for (std::size_t route = 0; route < verifier_.routes().size(); ++route) {
      if (!asked(route)) continue;
      const std::int64_t age_ns = ages_ns_[route];
      ordered_json source = {{"name", name_of(route)},
                             {"scheme", verifier_.routes()[route].scheme},
                             {"state", source_state(age_ns, verifier_.limits())}};
      if (age_ns != kNever) source["age_ms"] = age_ns / 1'000'000;
      if (const char* too_old = too_old_by(age_ns)) source["too_old"] = too_old;
      source["tried"] = tried(route);
      list.push_back(source);
    }
    return list;
  }

  [[nodiscard]] const char* too_old_by(std::int64_t age_ns) const {
    if (age_ns == kNever) return "never_loaded";
    if (age_ns > verifier_.limits().max_stale_ns) return "max_stale";
    const bool demanded = terms_.max_age_ms != LATCHKEY_MAX_AGE_ANY;
    return demanded && age_ns > std::int64_t{terms_.max_age_ms} * 1'000'000 ? "max_age" : nullptr;
  }

  [[nodiscard]] ordered_json tried(std::size_t route) const {
    ordered_json list = ordered_json::array();
    if (outcome_.verdict == LATCHKEY_MALFORMED) return list;  // nothing was looked up
    for (const std::size_t digester : verifier_.routes()[route].digesters) {
      ordered_json way = digest(digester);
      way["found"] = std::ranges::any_of(seen_, [&](const Sighting& row) {
        return row.route == route && row.digester == digester;
      });
      list.push_back(way);
    }
    return list;
  }

  [[nodiscard]] ordered_json digest(std::size_t digester) const {
    const Digester& how = verifier_.digesters()[digester];
    ordered_json json = {{"digest", how.label()}};
    if (!how.pepper_version().empty()) json["pepper"] = how.pepper_version();
    return json;
  }

  // ---- the rows that were found

  [[nodiscard]] ordered_json rows() const {
    ordered_json list = ordered_json::array();
    for (const Sighting& row : told(rows_)) list.push_back(row_json(row));
    return list;
  }
  static std::span<const Sighting> told(const std::vector<Sighting>& rows) {
    return std::span(rows).first(std::min(rows.size(), kExplainedRowsMax));
  }

  [[nodiscard]] ordered_json row_json(const Sighting& row) const {
    const Record& record = *row.record;
    ordered_json json = {{"source", name_of(row.route)}, {"key_id", record.key_id()}};
    json.update(digest(row.digester));
    json["speaks"] = speaks(row);
    const auto value = [&record](latchkey_claim tag) { return claim(record.claims(), tag); };
    if (const auto subject = value(LATCHKEY_CLAIM_SUBJECT)) json["sub"] = *subject;
    if (record.tenant() != nullptr) json["tenant"] = record.tenant()->value();
    if (record.scopes() != nullptr) {
      json["scope"] = *claim(record.scopes()->claim, LATCHKEY_CLAIM_SCOPE);
    }
    if (is_time(expires_us(row))) json["exp"] = floor_seconds(expires_us(row));
    if (is_time(not_before_us(row))) json["nbf"] = floor_seconds(not_before_us(row));
    json["failing"] = failing(row);
    return json;
  }

  // The stricter of the row's time and the token's own.
  static std::int64_t expires_us(const Sighting& row) {
    return std::min(row.record->expires_us(), row.token.expires_us);
  }
  static std::int64_t not_before_us(const Sighting& row) {
    return std::max(row.record->not_before_us(), row.token.not_before_us);
  }

  // False for infinite times.
  static bool is_time(std::int64_t us) { return us != kNeverExpires && us != kAlwaysValid; }

  static std::optional<std::string_view> claim(Bytes claims, latchkey_claim tag) {
    while (!claims.empty()) {
      const std::size_t length = load_le<std::uint16_t>(claims.data() + 1);
      if (claims[0] == tag) return as_text(claims.subspan(LATCHKEY_CLAIM_BYTES, length));
      claims = claims.subspan(LATCHKEY_CLAIM_BYTES + length);
    }
    return std::nullopt;
  }

  // All conditions for which this row refuses the key; the deciding one comes first.
  [[nodiscard]] ordered_json failing(const Sighting& row) const {
    const Record& record = *row.record;
    ordered_json list = ordered_json::array();
    if (const auto rows = record.stands_for()) {
      list.push_back(several_rows(*rows));
      return list;  // the record stands for several rows: its other fields carry no information
    }
    if (record.state() != RowState::kActive) {
      list.push_back({{"condition", state_name(record.state())}});
    }
    add_twins(row, list);
    add_times(row, list);
    add_others(row, list);
    add_scopes(record, list);
    return list;
  }

  static const char* state_name(RowState state) {
    switch (state) {
      case RowState::kRevoked: return "revoked";
      case RowState::kDisabled: return "disabled";
      case RowState::kDeleted: return "deleted";
      case RowState::kActive: break;
    }
    return "active";
  }

  // `rows` holds one id, or none, while the writer adds or removes rows at this very instant.
  static ordered_json several_rows(std::string_view rows) {
    ordered_json ids = ordered_json::array();
    bool more = false;
    for (std::size_t at = 0; at <= rows.size() && !rows.empty();) {
      const std::size_t end = std::min(rows.find('\0', at), rows.size());
      if (end > at) ids.push_back(rows.substr(at, end - at));
      more = more || end == at;
      at = end + 1;
    }
    ordered_json condition = {{"condition", ids.size() > 1 || more ? "ambiguous" : "changing"},
                              {"key_ids", ids}};
    if (more) condition["more"] = true;
    return condition;
  }

  void add_times(const Sighting& row, ordered_json& list) const {
    const std::int64_t expires = expires_us(row);
    if (expires <= now_.real_us && expires != kNeverExpires) {
      ordered_json condition = {{"condition", "expired"}};
      if (is_time(expires)) {
        condition["at"] = floor_seconds(expires);
        condition["for_s"] = seconds(now_.real_us - expires);
      }
      list.push_back(condition);
    }
    const std::int64_t not_before = not_before_us(row);
    if (not_before > now_.real_us) {
      ordered_json condition = {{"condition", "not_yet_valid"}};
      if (is_time(not_before)) {
        condition["at"] = floor_seconds(not_before);
        condition["in_s"] = seconds(not_before - now_.real_us);
      }
      list.push_back(condition);
    }
  }

  void add_scopes(const Record& record, ordered_json& list) const {
    const ScopeSet* held = record.scopes();
    const auto holds = [held](std::string_view scope) {
      return held != nullptr && held->holds(scope);
    };
    ordered_json missing = ordered_json::array();
    for (const std::string_view scope : terms_.all_scopes) {
      if (!holds(scope)) missing.push_back(scope);
    }
    const bool none = !terms_.any_scopes.empty() && std::ranges::none_of(terms_.any_scopes, holds);
    if (missing.empty() && !none) return;
    ordered_json condition = {{"condition", verdict_name(LATCHKEY_INSUFFICIENT_SCOPE)}};
    if (!missing.empty()) condition["missing"] = missing;
    if (none) {
      for (const std::string_view scope : terms_.any_scopes) condition["none_of"].push_back(scope);
    }
    list.push_back(condition);
  }

  // Lists the other active rows of the same source: the key's owner is ambiguous then.
  void add_twins(const Sighting& row, ordered_json& list) const {
    if (!is_active(row)) return;
    ordered_json ids = ordered_json::array({row.record->key_id()});
    for (const Sighting& other : told(rows_)) {
      if (other.record != row.record && is_twin(other, row)) ids.push_back(other.record->key_id());
    }
    if (ids.size() > 1) list.push_back({{"condition", "ambiguous"}, {"key_ids", ids}});
  }

  static bool is_twin(const Sighting& other, const Sighting& row) {
    return other.route == row.route && (is_active(other) || other.record->stands_for());
  }

  // Lists the other rows that refuse the key, if this row would accept it by itself.
  void add_others(const Sighting& row, ordered_json& list) const {
    if (row.verdict != LATCHKEY_VALID) return;
    for (const Sighting& other : told(rows_)) {
      if (other.record == row.record || is_twin(other, row)) continue;
      if (other.verdict == LATCHKEY_VALID && !(speaks(other) && is_ambiguous())) continue;
      list.push_back({{"condition", "other_row_refuses"},
                      {"source", name_of(other.route)},
                      {"key_id", other.record->key_id()}});
    }
  }

  const Verifier& verifier_;
  const Question& question_;
  const Terms& terms_;
  const Now now_;
  std::vector<std::int64_t> ages_ns_;
  std::vector<Sighting> seen_;
  std::vector<Sighting> rows_;  // distinct; the deciding row comes first
  Outcome outcome_;
};

}  // namespace

std::string explain(const Verifier& verifier, const Question& question, const Now& now) {
  constexpr std::size_t kBytesMax = LATCHKEY_REPLY_BYTES_MAX - LATCHKEY_HEADER_BYTES;
  ordered_json json = Explanation(verifier, question, now).json();
  // Text that is not UTF-8 must not make the reply unreadable.
  const auto text = [&json] {
    return json.dump(-1, ' ', false, ordered_json::error_handler_t::replace);
  };
  // Only ids or pepper names with kilobytes of control characters exceed the limit.
  for (const char* part : {"rows", "sources"}) {
    if (std::string whole = text(); whole.size() <= kBytesMax) return whole;
    json[part] = ordered_json::array();
    json["left_out"].push_back(part);
  }
  return text();
}

}  // namespace latchkey
