#include "loader/postgres/notices.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "loader/postgres/text_converter.h"

namespace latchkey {
namespace {

using nlohmann::json;

// A node of the deque, and malloc's overhead.
constexpr std::size_t kOverhead = 96;

std::string as_json(const std::string& name) {
  const std::string quoted = json(name).dump(-1, ' ', false, json::error_handler_t::replace);
  return quoted.substr(1, quoted.size() - 2);
}

std::size_t cost(std::string_view payload) { return payload.size() + kOverhead; }

}  // namespace

std::optional<std::string_view> notice_tag(std::string_view payload) {
  const auto skip = [&](std::string_view token) {
    payload.remove_prefix(std::min(payload.find_first_not_of(" \t\r\n"), payload.size()));
    if (!payload.starts_with(token)) return false;
    payload.remove_prefix(token.size());
    return true;
  };
  if (!skip("{") || !skip("\"t\"") || !skip(":") || !skip("\"")) return std::nullopt;
  for (std::size_t end = 0; end < payload.size(); ++end) {
    if (payload[end] == '"') return payload.substr(0, end);
    if (payload[end] == '\\') ++end;
  }
  return std::nullopt;
}

NoticeQueue::NoticeQueue(const std::vector<std::string>& tables, std::size_t bytes_max)
    : bytes_max_(bytes_max) {
  for (const std::string& name : tables) tables_.push_back({as_json(name)});
}

// A name may contain more escapes than ours do. Triggers never send these, so their payloads may
// cost more; but names longer than one of ours can be are not unescaped.
std::optional<std::size_t> NoticeQueue::table_of(std::string_view tag) const {
  constexpr std::size_t kEscapedMax = 6 * 2 * 64;  // schema and table, \u0000 for each byte
  std::string unescaped;
  if (tag.find('\\') != tag.npos && tag.size() <= kEscapedMax) {
    const json name = json::parse('"' + std::string(tag) + '"', nullptr, false);
    if (name.is_string()) tag = unescaped = as_json(name.get<std::string>());
  }
  const auto found = std::ranges::find(tables_, tag, &Table::tag);
  if (found == tables_.end()) return std::nullopt;
  return static_cast<std::size_t>(found - tables_.begin());
}

NoticeQueue::Pushed NoticeQueue::push_change(std::string_view payload) {
  const auto tag = notice_tag(payload);
  if (!tag) return Pushed::kMalformed;
  const auto index = table_of(*tag);
  if (!index) return Pushed::kOtherTable;
  if (tables_[*index].too_many) return Pushed::kTaken;  // the coming TooMany includes it
  tables_[*index].bytes += cost(payload);
  bytes_ += cost(payload);
  queue_.emplace_back(Change{*index, std::string(payload)});
  if (bytes_ > bytes_max_) {
    const auto largest = std::ranges::max_element(tables_, {}, &Table::bytes);
    collapse(static_cast<std::size_t>(largest - tables_.begin()));
  }
  return Pushed::kTaken;
}

NoticeQueue::Pushed NoticeQueue::push_unreadable(std::string_view payload) {
  const auto tag = notice_tag(payload);
  if (!tag) return Pushed::kMalformed;
  if (is_ascii(*tag)) {
    const auto index = table_of(*tag);
    if (!index) return Pushed::kOtherTable;
    collapse(*index);
    return Pushed::kTaken;
  }
  Pushed pushed = Pushed::kOtherTable;
  for (std::size_t i = 0; i < tables_.size(); ++i) {
    if (is_ascii(tables_[i].tag)) continue;
    collapse(i);
    pushed = Pushed::kTaken;
  }
  return pushed;
}

void NoticeQueue::collapse(std::size_t table) {
  if (tables_[table].too_many) return;  // then it has no notices in the queue, which may be long
  std::erase_if(queue_, [table](const auto& notice) {
    const auto* change = std::get_if<Change>(&notice);
    return change != nullptr && change->table == table;
  });
  bytes_ -= std::exchange(tables_[table].bytes, 0);
  tables_[table].too_many = true;
}

void NoticeQueue::push_own(std::string_view payload) {
  queue_.emplace_back(Own{std::string(payload)});
}

std::optional<NoticeQueue::Notice> NoticeQueue::pop() {
  for (std::size_t i = 0; i < tables_.size(); ++i) {
    if (std::exchange(tables_[i].too_many, false)) return TooMany{i};
  }
  if (queue_.empty()) return std::nullopt;
  auto first = std::move(queue_.front());
  queue_.pop_front();
  if (auto* change = std::get_if<Change>(&first)) {
    tables_[change->table].bytes -= cost(change->payload);
    bytes_ -= cost(change->payload);
    return std::move(*change);
  }
  return std::get<Own>(std::move(first));
}

void NoticeQueue::clear() {
  queue_.clear();
  bytes_ = 0;
  for (Table& table : tables_) {
    table.bytes = 0;
    table.too_many = false;
  }
}

bool NoticeQueue::empty() const {
  return queue_.empty() && std::ranges::none_of(tables_, &Table::too_many);
}

}  // namespace latchkey
