#include "loader/postgres/change_notice.h"

#include <nlohmann/json.hpp>
#include <utility>

namespace latchkey {
namespace {

using nlohmann::json;

// The length of to_json(text)::text, as PostgreSQL's escape_json() writes it.
std::size_t json_length(std::string_view text) {
  std::size_t length = 2;
  for (const char c : text) {
    const bool named = c == '"' || c == '\\' || (c >= '\b' && c <= '\r' && c != '\v');
    length += named ? 2 : static_cast<unsigned char>(c) < 0x20 ? 6 : 1;
  }
  return length;
}

}  // namespace

bool is_notified_id(std::string_view id) {
  // JSON escapes only add length.
  return id.size() <= kIdBytesMax && json_length(id) <= kIdBytesMax;
}

std::optional<ChangeNotice> ChangeNotice::parse(std::string_view payload) {
  const json from = json::parse(payload, nullptr, /*allow_exceptions=*/false);
  if (!from.is_object() || !from.contains("t") || !from["t"].is_string()) return std::nullopt;
  ChangeNotice notice;
  notice.table = from["t"].get<std::string>();
  for (const auto& [word, said] :
       {std::pair("all", &notice.truncated), std::pair("reload", &notice.reload)}) {
    const auto whole = from.find(word);
    if (whole == from.end()) continue;
    if (!whole->is_boolean() || !whole->get<bool>()) return std::nullopt;
    *said = true;
    return notice;
  }
  const auto ids = from.find("ids");
  if (ids == from.end() || !ids->is_array()) return std::nullopt;
  for (const json& id : *ids) {
    if (!id.is_string()) return std::nullopt;
    notice.ids.push_back(id.get<std::string>());
  }
  return notice;
}

}  // namespace latchkey
